package storetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// notification returns one that is due.
func notification(edit ...func(*pki.Notification)) pki.Notification {
	n := pki.Notification{ID: fmt.Sprintf("NO%08d", counter.Add(1)), Point: "default", Body: []byte(`{"ü":1}`), CreatedAt: base, NextAt: base}
	for _, f := range edit {
		f(&n)
	}
	return n
}

func (e *env) claim(what, point string, now, until time.Time, limit int, want ...pki.Notification) {
	e.t.Helper()
	got, err := e.ClaimNotifications(e.t.Context(), point, now, until, limit)
	if err != nil {
		e.t.Fatalf("%s: ClaimNotifications: %v", what, err)
	}
	for i := range want {
		want[i].NextAt = until
		want[i].Attempts++
	}
	equal(e.t, what, got, want)
}

func testNotifications(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	first := notification()
	second := notification(func(n *pki.Notification) {
		n.CreatedAt, n.NextAt, n.Attempts, n.Error = base.Add(time.Second), base.Add(time.Second), 2, "no answer"
	})
	third := notification(func(n *pki.Notification) { n.NextAt = base.Add(time.Hour) })
	other := notification(func(n *pki.Notification) { n.Point, n.Error, n.Body = "other", "ü", []byte{} })
	before := e.head()
	if err := e.PutNotifications(ctx, []pki.Notification{third, second, first, other}); err != nil {
		t.Fatalf("PutNotifications: %v", err)
	}
	twice := first
	twice.Body = []byte("another")
	fourth := notification(func(n *pki.Notification) { n.NextAt = base.Add(2 * time.Hour) })
	if err := e.PutNotifications(ctx, []pki.Notification{twice, fourth}); err != nil {
		t.Fatalf("PutNotifications of one that is there: %v", err)
	}
	if err := e.PutNotifications(ctx, nil); err != nil {
		t.Errorf("PutNotifications of none: %v", err)
	}
	backlogs := func(what string, want ...store.NotificationBacklog) {
		t.Helper()
		got, err := e.NotificationBacklogs(ctx)
		if err != nil {
			t.Fatalf("NotificationBacklogs: %v", err)
		}
		equal(t, what, got, want)
	}
	backlogs("NotificationBacklogs",
		store.NotificationBacklog{Point: "default", Waiting: 4, Oldest: base},
		store.NotificationBacklog{Point: "other", Waiting: 1, Oldest: base, Error: "ü"})

	until := base.Add(10 * time.Minute)
	e.claim("before the first is due", "default", base.Add(-time.Microsecond), until, 10)
	e.claim("a point without any", "none", base.Add(time.Hour), until, 10)
	e.claim("none at most", "default", base.Add(time.Minute), until, 0)
	e.claim("the first due", "default", base.Add(time.Minute), until, 1, first)
	e.claim("what is left", "default", base.Add(time.Minute), until, 10, second)
	e.claim("nothing left", "default", base.Add(time.Minute), until, 10)

	// Who died is followed by another.
	second.Attempts++ // as it was claimed
	first.Attempts++
	both := inOrder(first, second)
	again := until.Add(10 * time.Minute)
	e.claim("claimed again", "default", until, again, 10, both...)
	failed := second
	failed.NextAt, failed.Error = base.Add(2*time.Hour), "503"
	gone := notification()
	if err := e.SettleNotifications(ctx, []string{first.ID, "none"}, []pki.Notification{failed, gone}); err != nil {
		t.Fatalf("SettleNotifications: %v", err)
	}
	if err := e.SettleNotifications(ctx, nil, nil); err != nil {
		t.Errorf("SettleNotifications of none: %v", err)
	}
	backlogs("after the first was delivered",
		store.NotificationBacklog{Point: "default", Waiting: 3, Oldest: base},
		store.NotificationBacklog{Point: "other", Waiting: 1, Oldest: base, Error: "ü"})
	equal(t, "Head", e.head(), before)

	record := record("webhook.drop", base)
	if err := e.DropNotifications(ctx, []string{third.ID, other.ID, "none"}, record); err != nil {
		t.Fatalf("DropNotifications: %v", err)
	}
	if after := e.head(); after.Change != before.Change+1 || after.AuditSeq != before.AuditSeq+1 || after.ConfigChange != before.ConfigChange {
		t.Errorf("Head after DropNotifications = %+v, before it %+v", after, before)
	}
	failed.Attempts = second.Attempts + 1
	e.claim("what is left", "default", base.Add(3*time.Hour), base.Add(4*time.Hour), 10, inOrder(failed, fourth)...)
	if err := e.SettleNotifications(ctx, []string{second.ID, fourth.ID}, nil); err != nil {
		t.Fatalf("SettleNotifications: %v", err)
	}
	backlogs("nothing waits")
	e.verifyChain()
}

// inOrder sorts by id, as among those that are due at the same time.
func inOrder(ns ...pki.Notification) []pki.Notification {
	slices.SortFunc(ns, func(a, b pki.Notification) int { return cmp.Compare(a.ID, b.ID) })
	return ns
}

// testNotificationWithEnrollment: a notification is written with what it tells of, or not at all.
func testNotificationWithEnrollment(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	waiting := enrollment()
	put, both := notification(), notification()
	c := store.EnrollmentChange{Enrollment: waiting, Request: []byte("sealed"), Notifications: []pki.Notification{put, both}, Record: record("enrollment.pending", base)}
	if err := e.PutEnrollment(ctx, c); err != nil {
		t.Fatalf("PutEnrollment: %v", err)
	}
	late := notification()
	c.Notifications = []pki.Notification{late}
	wantFault(t, "PutEnrollment again", e.PutEnrollment(ctx, c), fault.Conflict, store.ErrStale)

	cert := certificate(e.issuing)
	told := notification(func(n *pki.Notification) { n.NextAt = base.Add(time.Second) })
	i := issuance(cert)
	i.Enrollment = &store.EnrollmentChange{Notifications: []pki.Notification{told}, Enrollment: enrollment(func(r *pki.Enrollment) {
		r.ID, r.State, r.Issued = "", pki.EnrollmentIssued, cert.Fingerprint
	})}
	if err := e.RecordIssuance(ctx, i); err != nil {
		t.Fatalf("RecordIssuance: %v", err)
	}
	i = issuance(certificate(e.issuing))
	i.Enrollment = &store.EnrollmentChange{Notifications: []pki.Notification{late}, UseChallenge: true, Enrollment: enrollment(func(r *pki.Enrollment) {
		r.ID, r.State, r.Challenge = "", pki.EnrollmentIssued, "none"
	})}
	wantFault(t, "RecordIssuance", e.RecordIssuance(ctx, i), fault.Conflict, store.ErrChallengeUsed)
	e.claim("what happened", "default", base.Add(time.Hour), base.Add(2*time.Hour), 10, append(inOrder(put, both), told)...)
	e.verifyChain()
}

// testNotificationClaims: of many who claim at once each notification has one claimant, on whatever replica.
func testNotificationClaims(t *testing.T, h Harness) {
	e := open(t, h)
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	const n = 200
	var all []pki.Notification
	for range n {
		all = append(all, notification())
	}
	if err := e.PutNotifications(t.Context(), all); err != nil {
		t.Fatalf("PutNotifications: %v", err)
	}
	var mu sync.Mutex
	claimed := map[string]int{}
	var wg sync.WaitGroup
	for g := range 8 {
		s := stores[g%len(stores)]
		wg.Go(func() {
			for {
				page, err := s.ClaimNotifications(t.Context(), "default", base, base.Add(time.Hour), 7)
				if err != nil {
					t.Errorf("ClaimNotifications: %v", err)
					return
				}
				// Nothing may come back while others hold the last ones; they do not let go of them.
				if len(page) == 0 {
					return
				}
				mu.Lock()
				for _, n := range page {
					claimed[n.ID]++
				}
				mu.Unlock()
				var done []string
				for _, n := range page {
					done = append(done, n.ID)
				}
				if err := s.SettleNotifications(t.Context(), done, nil); err != nil {
					t.Errorf("SettleNotifications: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if len(claimed) != n {
		t.Errorf("%d notifications were claimed, want %d", len(claimed), n)
	}
	for id, times := range claimed {
		if times != 1 {
			t.Errorf("%s was claimed %d times", id, times)
		}
	}
	if left, err := e.NotificationBacklogs(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("%+v are left, %v", left, err)
	}
}

// notificationVerbs are those of this file.
func (e *env) notificationVerbs() []verb {
	e.fillNotifications()
	return []verb{
		{"PutNotifications", func(ctx context.Context) error { return e.PutNotifications(ctx, []pki.Notification{notification()}) }},
		{"ClaimNotifications", func(ctx context.Context) error {
			_, err := e.ClaimNotifications(ctx, "default", base, base, 1)
			return err
		}},
		{"SettleNotifications", func(ctx context.Context) error { return e.SettleNotifications(ctx, []string{"none"}, nil) }},
		{"DropNotifications", func(ctx context.Context) error {
			return e.DropNotifications(ctx, []string{"none"}, record("webhook.drop", base))
		}},
		{"NotificationBacklogs", func(ctx context.Context) error { _, err := e.NotificationBacklogs(ctx); return err }},
	}
}

// fillNotifications gives the table rows of every kind.
func (e *env) fillNotifications() {
	e.t.Helper()
	ns := []pki.Notification{notification(), notification(func(n *pki.Notification) {
		n.Point, n.Body, n.NextAt, n.Attempts, n.Error = "ü", []byte{}, base.Add(time.Hour), 3, "ü"
	})}
	if err := e.PutNotifications(e.t.Context(), ns); err != nil {
		e.t.Fatalf("PutNotifications: %v", err)
	}
}
