package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// device returns a record as a person would create it.
func device(edit ...func(*pki.Device)) pki.Device {
	d := pki.Device{
		ID: fmt.Sprintf("dev-%08d", counter.Add(1)), Version: 1, Status: pki.DeviceExpected, CreatedAt: base, CreatedBy: "token:test", ChangedAt: base, ChangedBy: "token:test",
	}
	for _, f := range edit {
		f(&d)
	}
	return d
}

// wholeDevice returns a record with something in every field.
func wholeDevice() pki.Device {
	return device(func(d *pki.Device) {
		d.Version, d.Status, d.Group, d.Owner, d.Note, d.Reason = 3, pki.DeviceBlocked, "gröup", "owner", "for people", "stolen"
		d.Labels = map[string]string{"site": `B "2" \ {ü}`, "a.b/c": "<&>", `quo"te`: "v"}
		d.Subject, d.SANs = "CN=d,O=ü", []string{"DNS:d.example", `URI:"{,}`, ""}
		d.FirstSeenAt, d.LastSeenAt, d.LastSource, d.LastPoint = base.Add(time.Second), base.Add(time.Hour), "2001:db8::1", "default"
		d.Protocol = pki.DeviceProtocol{Message: "RenewalReq", Digest: "SHA-256", Cipher: "AES-128-CBC", KeyTransport: "RSAES-OAEP", Key: "RSA-2048", UserAgent: "ü/1"}
		d.Certificate, d.IssuerKeyID, d.Serial, d.NotAfter = pki.Fingerprint(randomBytes(32)), 7, pki.SerialNumber([]byte{1, 2}), base.AddDate(1, 0, 0)
		d.Failures, d.RenewalFailures, d.FailedAt, d.Failure, d.Returns = 4, 3, base.Add(time.Minute), "challenge", 2
		d.RevokeReason, d.RevokeUntil, d.RevokeProfile = pki.KeyCompromise, base.Add(2*time.Hour), "device"
	})
}

func (e *env) create(ds ...pki.Device) {
	e.t.Helper()
	if err := e.CreateDevices(e.t.Context(), ds, record("device.create", base)); err != nil {
		e.t.Fatalf("CreateDevices: %v", err)
	}
}

func (e *env) device(id string) pki.Device {
	e.t.Helper()
	d, err := e.Device(e.t.Context(), id)
	if err != nil {
		e.t.Fatalf("Device(%q): %v", id, err)
	}
	return d
}

// setStatus changes a device as it stands.
func (e *env) setStatus(id string, status pki.DeviceStatus) {
	e.t.Helper()
	d := e.device(id)
	d.Version, d.Status = d.Version+1, status
	if err := e.ChangeDevice(e.t.Context(), store.DeviceChange{Device: d, Record: record("device.change", base)}); err != nil {
		e.t.Fatalf("ChangeDevice: %v", err)
	}
}

// deviceIDs lists all pages.
func (e *env) deviceIDs(f store.DeviceFilter, limit int) []string {
	e.t.Helper()
	ids := []string{}
	for p := (store.Page{Limit: limit}); ; {
		page, next, err := e.ListDevices(e.t.Context(), f, p)
		if err != nil {
			e.t.Fatalf("ListDevices(%+v, %+v): %v", f, p, err)
		}
		for _, d := range page {
			ids = append(ids, d.ID)
		}
		if p.Cursor = next; next == "" {
			return ids
		}
		if len(page) != limit {
			e.t.Fatalf("ListDevices(%+v, %+v) returned a page of %d that is not the last", f, p, len(page))
		}
	}
}

func testDevices(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	_, err := e.Device(ctx, "none")
	wantFault(t, "a device that is not there", err, fault.NotFound, nil)
	whole, plain := wholeDevice(), device()
	before := e.head()
	e.create(plain, whole)
	if after := e.head(); after.Change != before.Change+1 {
		t.Errorf("Head = %+v after %+v", after, before)
	}
	equal(t, "a whole device", e.device(whole.ID), whole)
	equal(t, "a plain device", e.device(plain.ID), plain)
	byID := func(want map[string]pki.Device, ids ...string) {
		t.Helper()
		if got, err := e.DevicesByID(ctx, ids); err != nil || len(got) != len(want) {
			t.Errorf("DevicesByID(%q) = %d devices, %v; want %d", ids, len(got), err, len(want))
		} else {
			equal(t, "devices by their ids", got, want)
		}
	}
	byID(map[string]pki.Device{})
	byID(map[string]pki.Device{}, "none")
	byID(map[string]pki.Device{whole.ID: whole, plain.ID: plain}, whole.ID, "none", plain.ID, whole.ID)
	absentIDs := make([]string, 1500, 1501)
	for i := range absentIDs {
		absentIDs[i] = fmt.Sprint("none ", i)
	}
	byID(map[string]pki.Device{whole.ID: whole}, append(absentIDs, whole.ID)...)
	fresh := device()
	err = e.CreateDevices(ctx, []pki.Device{fresh, whole}, record("device.create", base))
	wantFault(t, "an id that exists", err, fault.Conflict, nil)
	if err == nil || !strings.Contains(err.Error(), whole.ID) {
		t.Errorf("the refusal does not name %s: %v", whole.ID, err)
	}
	wantFault(t, "an id twice", e.CreateDevices(ctx, []pki.Device{fresh, fresh}, record("device.create", base)), fault.Conflict, nil)
	_, err = e.Device(ctx, fresh.ID)
	wantFault(t, "all or none", err, fault.NotFound, nil)

	// What people say is replaced, what was seen stays.
	open, used := e.challenge(func(c *pki.Challenge) { c.Device = plain.ID }), e.challenge(func(c *pki.Challenge) { c.Device, c.UsedAt = plain.ID, base })
	other := e.challenge()
	changed := whole
	changed.Version, changed.Status, changed.Group, changed.Owner, changed.Note, changed.Reason = 4, pki.DeviceRetired, "g2", "o2", "n2", "r2"
	changed.Labels, changed.Subject, changed.SANs = map[string]string{"k": "v"}, "", []string{"DNS:x"}
	changed.ChangedAt, changed.ChangedBy = base.Add(time.Hour), "token:other"
	said := changed
	said.CreatedBy, said.LastSource, said.Failures, said.Protocol, said.Serial = "x", "x", 9, pki.DeviceProtocol{Key: "x"}, "x" // not written
	said.RevokeUntil = time.Time{}                                                                                              // nor this
	said.RevokeReason = pki.Superseded
	if err := e.ChangeDevice(ctx, store.DeviceChange{Device: said, EndChallenges: true, Record: record("device.change", base)}); err != nil {
		t.Fatal(err)
	}
	equal(t, "a changed device", e.device(whole.ID), changed)
	wantFault(t, "the same version again", e.ChangeDevice(ctx, store.DeviceChange{Device: said, Record: record("device.change", base)}), fault.Conflict, store.ErrStale)
	absent := device()
	wantFault(t, "a device that is not there", e.ChangeDevice(ctx, store.DeviceChange{Device: absent, Record: record("device.change", base)}), fault.NotFound, nil)

	blocked := plain
	blocked.Version, blocked.Status, blocked.ChangedAt = 2, pki.DeviceBlocked, base.Add(time.Minute)
	blocked.RevokeReason, blocked.RevokeUntil = pki.KeyCompromise, base.Add(time.Minute)
	if err := e.ChangeDevice(ctx, store.DeviceChange{Device: blocked, EndChallenges: true, Record: record("device.change", base)}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		what string
		id   string
		at   time.Time
	}{{"an open challenge", open.ID, base.Add(time.Minute)}, {"a used one", used.ID, time.Time{}}, {"another's", other.ID, time.Time{}}} {
		if c, err := e.Challenge(ctx, want.id); err != nil || !c.RevokedAt.Equal(want.at) {
			t.Errorf("%s of a blocked device: revoked at %v, %v; want %v", want.what, c.RevokedAt, err, want.at)
		}
	}

	// What is left to be revoked.
	due := func(limit int) (ids []string) {
		ds, err := e.DevicesToRevoke(ctx, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			equal(t, "DevicesToRevoke", d, e.device(d.ID))
			ids = append(ids, d.ID)
		}
		return ids
	}
	want := []string{plain.ID, whole.ID}
	slices.Sort(want)
	equal(t, "DevicesToRevoke", due(10), want)
	equal(t, "DevicesToRevoke, one", due(1), want[:1])
	before = e.head()
	for _, done := range []struct {
		until time.Time
		left  []string
	}{{base.Add(time.Second), want}, {base.Add(time.Minute), []string{whole.ID}}} {
		if err := e.DeviceRevoked(ctx, plain.ID, done.until); err != nil {
			t.Fatal(err)
		}
		equal(t, "DevicesToRevoke after some are", due(10), done.left)
	}
	equal(t, "Head after DeviceRevoked", e.head(), before)
	blocked.RevokeReason, blocked.RevokeUntil = 0, time.Time{}
	equal(t, "a device whose certificates are revoked", e.device(plain.ID), blocked)

	// Many at once, in chunks.
	many := make([]pki.Device, 2500)
	for i := range many {
		many[i] = device(func(d *pki.Device) { d.Group = "many" })
	}
	e.create(many...)
	if n, err := e.CountDevices(ctx, store.DeviceFilter{Group: "many"}, 10_000); err != nil || n != len(many) {
		t.Errorf("CountDevices = %d, %v; want %d", n, err, len(many))
	}
	e.verifyChain()
}

func testDeviceFilters(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	ids := []string{"a", "B", "b", "ä", "A%b", "a_b", `a\b`, "0", "~", "日本", "a/b", "a b", "é", "Zz", "z", "€", "\U0001F600", strings.Repeat("x", 200)}
	revoked := e.issue(e.issuing, func(c *pki.Certificate) { c.Device = "" })
	e.change(revoked, pki.ActionRevoke, revocation(pki.Superseded, base))
	all := map[string]pki.Device{}
	for i, id := range ids {
		all[id] = device(func(d *pki.Device) {
			d.ID, d.Status = id, pki.DeviceStatuses()[i%4]
			d.Group, d.Owner, d.LastPoint = []string{"", "g1", "g2"}[i%3], []string{"", "Ö%_"}[i%2], []string{"p", ""}[i%2]
			if i%2 == 0 {
				d.Labels = map[string]string{"site": []string{"One", `t"wo`, "<3>"}[i%3], `k'"\ü`: "v"}
			}
			if i%5 == 0 {
				d.Subject, d.SANs = "CN=Näme", []string{"DNS:SAN.example", "IP:192.0.2.1"}
			}
			if i%4 > 0 {
				d.Certificate, d.IssuerKeyID, d.Serial = pki.Fingerprint{1}, e.issuing.key, pki.SerialNumber([]byte{byte(i + 1)})
				d.NotAfter, d.LastSeenAt = base.Add(time.Duration(i)*time.Hour), base.Add(-time.Duration(i)*time.Hour)
			}
			if id == "z" {
				d.Certificate, d.Serial, d.NotAfter = revoked.Fingerprint, revoked.Serial, base.Add(3*time.Hour)
			}
			d.Failures = i % 3
		})
	}
	e.create(slices.Collect(maps.Values(all))...)
	matches := func(f store.DeviceFilter, d pki.Device) bool {
		if len(f.Status) > 0 && !slices.Contains(f.Status, d.Status) || f.Group != "" && f.Group != d.Group || f.Owner != "" && f.Owner != d.Owner ||
			f.Point != "" && f.Point != d.LastPoint || f.Failing && d.Failures == 0 {
			return false
		}
		text := append([]string{d.ID, d.Group, d.Owner, d.Subject}, d.SANs...)
		for name, value := range d.Labels {
			text = append(text, name+"="+value)
		}
		if !slices.ContainsFunc(text, func(s string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(f.Text)) }) {
			return false
		}
		for name, value := range f.Labels {
			if got, ok := d.Labels[name]; !ok || got != value {
				return false
			}
		}
		within := func(at, from, to time.Time) bool {
			return from.IsZero() && to.IsZero() || !at.IsZero() && !at.Before(from) && (to.IsZero() || at.Before(to))
		}
		byEnd := !f.NotAfterFrom.IsZero() || !f.NotAfterTo.IsZero()
		return within(d.NotAfter, f.NotAfterFrom, f.NotAfterTo) && within(d.LastSeenAt, f.SeenFrom, f.SeenTo) && !(byEnd && d.Serial == revoked.Serial)
	}
	for name, f := range map[string]store.DeviceFilter{
		"everything":      {},
		"a status":        {Status: []pki.DeviceStatus{pki.DeviceBlocked}},
		"two":             {Status: []pki.DeviceStatus{pki.DeviceExpected, pki.DeviceRetired}},
		"a group":         {Group: "g1"},
		"no such group":   {Group: "g%"},
		"an owner":        {Owner: "Ö%_"},
		"a point":         {Point: "p"},
		"a label":         {Labels: map[string]string{"site": "One"}},
		"odd labels":      {Labels: map[string]string{"site": `t"wo`, `k'"\ü`: "v"}},
		"angle brackets":  {Labels: map[string]string{"site": "<3>"}},
		"another value":   {Labels: map[string]string{"site": "one"}},
		"text":            {Text: "B"},
		"percent":         {Text: "%"},
		"underscore":      {Text: "_b"},
		"backslash":       {Text: `\b`},
		"text of a label": {Text: "SITE=one"},
		"text of a SAN":   {Text: "san.EXAMPLE"},
		"not ASCII":       {Text: "NÄME"},
		"across fields":   {Text: "examplei"},
		"ends":            {NotAfterFrom: base.Add(2 * time.Hour), NotAfterTo: base.Add(15 * time.Hour)},
		"ended":           {NotAfterTo: base.Add(5 * time.Hour)},
		"seen":            {SeenFrom: base.Add(-9 * time.Hour)},
		"not seen since":  {SeenTo: base.Add(-9 * time.Hour)},
		"failing":         {Failing: true},
		"several":         {Failing: true, Group: "g2", Point: "p"},
	} {
		want := []string{}
		for _, id := range slices.Sorted(maps.Keys(all)) {
			if matches(f, all[id]) {
				want = append(want, id)
			}
		}
		for _, limit := range []int{1, 3, 1000} {
			equal(t, fmt.Sprintf("%s, pages of %d", name, limit), e.deviceIDs(f, limit), want)
		}
		for _, limit := range []int{0, 1, 1000} {
			if n, err := e.CountDevices(ctx, f, limit); err != nil || n != min(limit, len(want)) {
				t.Errorf("%s: CountDevices up to %d = %d, %v; want %d", name, limit, n, err, min(limit, len(want)))
			}
		}
	}
	_, _, err := e.ListDevices(ctx, store.DeviceFilter{}, store.Page{Cursor: "nonsense"})
	wantFault(t, "a made-up cursor", err, fault.BadRequest, nil)
}

func testDeviceIssuance(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	// By a challenge; a record that is there stays.
	first, later := e.challenge(func(c *pki.Challenge) { c.Device = "new" }), base.Add(time.Hour)
	want := pki.Device{ID: "new", Version: 1, Status: pki.DeviceExpected, CreatedAt: base, CreatedBy: first.CreatedBy, ChangedAt: base, ChangedBy: first.CreatedBy}
	e.challenge(func(c *pki.Challenge) { c.Device, c.CreatedAt, c.CreatedBy = "new", later, "other" })
	equal(t, "a device with challenges", e.device("new"), want)

	// The first certificate enrolls it. The device was seen when it asked, which may be long before.
	asked := later.Add(-time.Minute)
	c := certificate(e.issuing, func(c *pki.Certificate) { c.Device, c.IssuedAt = "new", later })
	i := issuance(c)
	i.Enrollment = &store.EnrollmentChange{UseChallenge: true, Enrollment: enrollment(func(r *pki.Enrollment) {
		r.ID, r.State, r.Challenge, r.Issued, r.Point, r.Device = "", pki.EnrollmentIssued, first.ID, c.Fingerprint, "lobby", "new"
		r.CreatedAt = asked
	})}
	if err := e.RecordIssuance(ctx, i); err != nil {
		t.Fatal(err)
	}
	want.Version, want.Status, want.ChangedAt, want.ChangedBy = 2, pki.DeviceEnrolled, later, c.Requester
	want.FirstSeenAt, want.LastSeenAt, want.LastSource, want.LastPoint = asked, asked, c.Source, "lobby"
	want.Certificate, want.IssuerKeyID, want.Serial, want.NotAfter = c.Fingerprint, c.IssuerKeyID, c.Serial, c.NotAfter
	equal(t, "an enrolled device", e.device("new"), want)

	// The next one is its newest, and what was refused before counts no more.
	err := e.NoteContacts(ctx, []store.Contact{
		{Device: "new", At: later.Add(time.Hour), Failure: "names", Renewal: true, Return: true, Point: "hall", Protocol: pki.DeviceProtocol{Key: "RSA-2048"}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := e.device("new"); d.Failures != 1 || d.RenewalFailures != 1 || d.Returns != 1 {
		t.Errorf("after a refusal: %+v", d)
	}
	next := e.issue(e.issuing, func(c *pki.Certificate) { c.Device, c.IssuedAt, c.Source = "new", later.Add(2*time.Hour), "" })
	want.LastSeenAt, want.LastPoint, want.Protocol = next.IssuedAt, "hall", pki.DeviceProtocol{Key: "RSA-2048"}
	want.Certificate, want.Serial, want.NotAfter = next.Fingerprint, next.Serial, next.NotAfter
	equal(t, "a device after its second certificate", e.device("new"), want)
	// What is approved after the device was seen somewhere else leaves that as it is.
	c = certificate(e.issuing, func(c *pki.Certificate) {
		c.Device, c.IssuedAt, c.Source = "new", next.IssuedAt.Add(time.Second), "192.0.2.77"
	})
	i = issuance(c)
	i.Enrollment = &store.EnrollmentChange{Enrollment: enrollment(func(r *pki.Enrollment) {
		r.ID, r.State, r.Issued, r.Point, r.Device, r.CreatedAt = "", pki.EnrollmentIssued, c.Fingerprint, "cellar", "new", later
	})}
	if err := e.RecordIssuance(ctx, i); err != nil {
		t.Fatal(err)
	}
	next = c
	want.Certificate, want.Serial, want.NotAfter = next.Fingerprint, next.Serial, next.NotAfter
	equal(t, "a device whose request was approved late", e.device("new"), want)
	note := func(at time.Time, failure string) {
		t.Helper()
		if err := e.NoteContacts(ctx, []store.Contact{{Device: "new", At: at, Failure: failure, Renewal: true}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	note(next.IssuedAt.Add(-time.Second), "before")
	equal(t, "a refusal before it that is noted late", e.device("new"), want)
	note(next.IssuedAt, "after")
	if d := e.device("new"); d.Failures != 1 || d.RenewalFailures != 1 || d.Failure != "after" || !d.FailedAt.Equal(next.IssuedAt) {
		t.Errorf("after a refusal: %+v", d)
	}

	// One that nobody knew is registered by its certificate; one without a name is not.
	strange := e.issue(e.issuing, func(c *pki.Certificate) { c.Device = "strange / ü%" })
	equal(t, "a device that nobody knew", e.device(strange.Device), pki.Device{
		ID: strange.Device, Version: 1, Status: pki.DeviceEnrolled, CreatedAt: strange.IssuedAt, CreatedBy: strange.Requester, ChangedAt: strange.IssuedAt, ChangedBy: strange.Requester,
		FirstSeenAt: strange.IssuedAt, LastSeenAt: strange.IssuedAt, LastSource: strange.Source,
		Certificate: strange.Fingerprint, IssuerKeyID: strange.IssuerKeyID, Serial: strange.Serial, NotAfter: strange.NotAfter,
	})
	e.issue(e.issuing, func(c *pki.Certificate) { c.Device = "" })
	equal(t, "all devices", e.deviceIDs(store.DeviceFilter{}, 100), []string{"new", strange.Device})
	e.verifyChain()
}

// testDeviceRefused: a device that is blocked or retired gets nothing, and its neighbours in a batch get theirs.
func testDeviceRefused(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	bad := []pki.Device{device(func(d *pki.Device) { d.Status = pki.DeviceBlocked }), device(func(d *pki.Device) { d.Status = pki.DeviceRetired })}
	e.create(bad...)
	for _, d := range bad {
		fresh := challenge(func(c *pki.Challenge) { c.Device = fmt.Sprint("fresh-", counter.Add(1)) })
		err := e.CreateChallenges(ctx, []pki.Challenge{fresh, challenge(func(c *pki.Challenge) { c.Device = d.ID })}, record("challenge.create", base))
		wantFault(t, "CreateChallenges", err, fault.PolicyRefused, store.ErrDeviceRefused)
		_, err = e.Device(ctx, fresh.Device)
		wantFault(t, "the device of a challenge that was refused", err, fault.NotFound, nil)
		waiting := enrollment(func(r *pki.Enrollment) { r.Device = d.ID })
		err = e.PutEnrollment(ctx, store.EnrollmentChange{Enrollment: waiting, Record: record("enrollment.pending", base)})
		wantFault(t, "PutEnrollment", err, fault.PolicyRefused, store.ErrDeviceRefused)
		waiting.State = pki.EnrollmentDenied
		if err := e.PutEnrollment(ctx, store.EnrollmentChange{Enrollment: waiting, Record: record("enrollment.deny", base)}); err != nil {
			t.Errorf("a denial: %v", err)
		}
	}
	var wg sync.WaitGroup
	var issued atomic.Int64
	for n := range 60 {
		wg.Go(func() {
			c := certificate(e.issuing, func(c *pki.Certificate) {
				if n%3 == 0 {
					c.Device = bad[n%2].ID
				}
				if n%10 == 1 {
					c.Device = "shared"
				}
			})
			err := e.RecordIssuance(ctx, issuance(c))
			if n%3 == 0 && n%10 != 1 {
				wantFault(t, "RecordIssuance", err, fault.PolicyRefused, store.ErrDeviceRefused)
				_, err := e.Certificate(ctx, c.Fingerprint)
				wantFault(t, "a certificate that was refused", err, fault.NotFound, nil)
				return
			}
			if err != nil {
				t.Errorf("a neighbour was refused: %v", err)
				return
			}
			issued.Add(1)
		})
	}
	wg.Wait()
	for _, d := range bad {
		equal(t, "a device that was refused", e.device(d.ID), d)
	}
	if newest := e.device("shared").Certificate; newest == (pki.Fingerprint{}) {
		t.Error("a device with several certificates in a batch has none")
	} else if c, err := e.Certificate(ctx, newest); err != nil || c.Device != "shared" {
		t.Errorf("its newest certificate is %+v, %v", c, err)
	}
	e.setStatus(bad[0].ID, pki.DeviceExpected)
	e.issue(e.issuing, func(c *pki.Certificate) { c.Device = bad[0].ID })
	e.verifyChain()
}

// testDeviceBlockRace: what was issued to a device before it was blocked is there when the block returns, and nothing
// comes after. Its neighbours go on.
func testDeviceBlockRace(t *testing.T, h Harness) {
	e := open(t, h)
	stores := []store.Store{e.Store, e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	const rounds, workers = 4, 9
	for round := range rounds {
		id := fmt.Sprint("victim-", round)
		if round%2 == 0 {
			e.create(device(func(d *pki.Device) { d.ID = id }))
		} else { // registered by its first certificate
			e.issue(e.issuing, func(c *pki.Certificate) { c.Device = id })
		}
		var wg sync.WaitGroup
		var blocked atomic.Bool
		enough := make(chan struct{}, 1000)
		for n := range workers {
			wg.Go(func() {
				s := stores[n%len(stores)]
				for k := 0; ; k++ {
					after := blocked.Load() // the block had returned before this began
					mine := certificate(e.issuing, func(c *pki.Certificate) { c.Device = id })
					err := s.RecordIssuance(t.Context(), issuance(mine))
					switch {
					case err == nil && after:
						t.Error("issued to a blocked device")
						return
					case err == nil:
						select {
						case enough <- struct{}{}:
						default:
						}
					case errors.Is(err, store.ErrDeviceRefused):
						if err := s.RecordIssuance(t.Context(), issuance(certificate(e.issuing))); err != nil {
							t.Errorf("a neighbour: %v", err)
						}
						return
					default:
						t.Errorf("RecordIssuance: %v", err)
						return
					}
				}
			})
		}
		ended := make(chan struct{})
		go func() { wg.Wait(); close(ended) }()
		for range 2 * workers {
			select {
			case <-enough:
			case <-ended:
				t.Fatal("every worker has ended before the device was blocked")
			}
		}
		for {
			d := e.device(id)
			d.Version, d.Status = d.Version+1, pki.DeviceBlocked
			err := e.ChangeDevice(t.Context(), store.DeviceChange{Device: d, EndChallenges: true, Record: record("device.block", base)})
			if err == nil {
				break
			}
			if !errors.Is(err, store.ErrStale) {
				t.Fatalf("ChangeDevice: %v", err)
			}
		}
		blocked.Store(true)
		count := func() int {
			n, err := e.CountCertificates(t.Context(), store.CertificateFilter{Device: id}, 100_000)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		then := count()
		wg.Wait()
		if now := count(); now != then {
			t.Errorf("the device had %d certificates when it was blocked, and has %d", then, now)
		}
	}
	e.verifyChain()
}

func testDeviceSuperseded(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	supersede := func(id, profile string, at time.Time) (pki.Certificate, error) {
		c := certificate(e.issuing, func(c *pki.Certificate) { c.Device, c.Profile, c.IssuedAt = id, profile, at })
		i := issuance(c)
		i.SupersedeDevice = true
		return c, e.RecordIssuance(ctx, i)
	}
	e.issue(e.issuing, func(c *pki.Certificate) { c.Device = "d" })
	for i, step := range []struct {
		profile string
		busy    bool
	}{{"device", false}, {"device", false}, {"other", true}} {
		at := base.Add(time.Duration(i+1) * time.Hour)
		before := e.device("d")
		c, err := supersede("d", step.profile, at)
		d := e.device("d")
		if step.busy {
			wantFault(t, "another profile meanwhile", err, fault.Unavailable, nil)
			equal(t, "a device that was left alone", d, before)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if d.Certificate != c.Fingerprint || d.RevokeReason != pki.Superseded || !d.RevokeUntil.Equal(at.Add(-time.Microsecond)) || d.RevokeProfile != "device" {
			t.Errorf("after the %d. certificate: %+v", i+1, d)
		}
	}
	if err := e.DeviceRevoked(ctx, "d", base.Add(3*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := supersede("d", "other", base.Add(4*time.Hour)); err != nil {
		t.Errorf("after the others were revoked: %v", err)
	}
	if d := e.device("d"); d.RevokeProfile != "other" {
		t.Errorf("device = %+v", d)
	}
	e.issue(e.issuing, func(c *pki.Certificate) { c.Device = "d" })
	if d := e.device("d"); d.RevokeProfile != "other" || d.RevokeUntil.IsZero() {
		t.Errorf("a certificate that supersedes nothing makes forget what is to be revoked: %+v", d)
	}

	// Several at once: the one that comes last has all others before it superseded.
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if _, err := supersede("busy", "device", base.Add(time.Duration(counter.Add(1))*time.Second)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	d := e.device("busy")
	c, err := e.Certificate(ctx, d.Certificate)
	if err != nil || !d.RevokeUntil.Equal(c.IssuedAt.Add(-time.Microsecond)) {
		t.Errorf("the newest was issued at %v, and those up to %v are to be revoked, %v", c.IssuedAt, d.RevokeUntil, err)
	}
	e.verifyChain()
}

func refused(day int, point, kind, reason string, number int64) store.Refusal {
	return store.Refusal{Day: day, Point: point, Kind: kind, Reason: reason, Number: number}
}

func testDeviceContacts(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	a, b := device(), device()
	e.create(a, b)
	before := e.head()
	at := func(minutes int) time.Time { return base.Add(time.Duration(minutes) * time.Minute) }
	key := pki.DeviceProtocol{Key: "EC-P256", Message: "PKCSReq"}
	if err := e.NoteContacts(ctx, nil, nil); err != nil {
		t.Error(err)
	}
	err := e.NoteContacts(ctx, []store.Contact{
		{Device: b.ID, At: at(3), Source: "192.0.2.1", Point: "one", Protocol: key},
		{Device: a.ID, At: at(2), Source: "192.0.2.2", Point: "one", Failure: "challenge"},
		{Device: "nobody", At: at(1), Failure: "challenge"},
		{Device: a.ID, At: at(1), Source: "192.0.2.3", Failure: "names", Renewal: true},
		{Device: a.ID, At: at(4), Point: "two", Renewal: true, Return: true},
	}, []store.Refusal{refused(20_000, "one", "enroll", "challenge", 2), refused(20_001, "one", "renew", "names", 1), refused(20_000, "one", "enroll", "challenge", 3), refused(20_000, "Two", "get", "ö", 1)})
	if err != nil {
		t.Fatal(err)
	}
	a.FirstSeenAt, a.LastSeenAt, a.LastSource, a.LastPoint = at(1), at(4), "192.0.2.3", "two"
	a.Failures, a.RenewalFailures, a.Returns, a.FailedAt, a.Failure = 2, 1, 1, at(1), "names"
	b.FirstSeenAt, b.LastSeenAt, b.LastSource, b.LastPoint, b.Protocol = at(3), at(3), "192.0.2.1", "one", key
	equal(t, "a", e.device(a.ID), a)
	equal(t, "b", e.device(b.ID), b)

	// From all sides at once, nothing is lost.
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	const each, workers = 10, 6
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			for range each {
				contacts := []store.Contact{{Device: a.ID, At: at(9), Failure: "x"}, {Device: b.ID, At: at(9), Return: true}}
				if n%2 == 0 {
					slices.Reverse(contacts)
				}
				if err := stores[n%len(stores)].NoteContacts(ctx, contacts, []store.Refusal{refused(20_002, "one", "enroll", "x", 1), refused(20_000, "Two", "get", "ö", 1)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if d := e.device(a.ID); d.Failures != 2+each*workers || !d.LastSeenAt.Equal(at(9)) || !d.FirstSeenAt.Equal(at(1)) {
		t.Errorf("a = %+v", d)
	}
	if d := e.device(b.ID); d.Returns != each*workers || d.Failures != 0 {
		t.Errorf("b = %+v", d)
	}
	for from, want := range map[int][]store.Refusal{
		0: {
			refused(20_000, "Two", "get", "ö", 1+each*workers),
			refused(20_000, "one", "enroll", "challenge", 5),
			refused(20_001, "one", "renew", "names", 1),
			refused(20_002, "one", "enroll", "x", each*workers),
		},
		20_002: {refused(20_002, "one", "enroll", "x", each*workers)},
		20_003: nil,
	} {
		got, err := e.Refusals(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, fmt.Sprint("Refusals from ", from), got, want)
	}
	_, err = e.Device(ctx, "nobody")
	wantFault(t, "a device that nobody registered", err, fault.NotFound, nil)
	equal(t, "Head after contacts", e.head(), before)
}

func testRefusalsPruned(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	all := []store.Refusal{
		refused(19_000, "one", "enroll", "challenge", 2), refused(19_000, "one", "renew", "names", 1), refused(19_001, "one", "enroll", "challenge", 3),
		refused(19_002, "one", "enroll", "challenge", 4), refused(20_000, "one", "get", "ö", 5),
	}
	if err := e.NoteContacts(ctx, nil, all); err != nil {
		t.Fatal(err)
	}
	before := e.head()
	for _, step := range []struct{ before, limit, want, left int }{
		{19_000, 10, 0, 5},
		{19_002, 2, 2, 3}, // the oldest day's
		{19_002, 2, 1, 2},
		{19_002, 2, 0, 2},
		{19_003, 10, 1, 1},
	} {
		if n, err := e.PruneRefusals(ctx, step.before, step.limit); err != nil || n != step.want {
			t.Errorf("PruneRefusals(%d, %d) = %d, %v; want %d", step.before, step.limit, n, err, step.want)
		}
		got, err := e.Refusals(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "what is left", got, all[len(all)-step.left:])
	}
	equal(t, "Head after forgetting", e.head(), before)
}

func testFleet(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	now := base
	revoked := e.issue(e.issuing, func(c *pki.Certificate) { c.Device = "" })
	e.change(revoked, pki.ActionHold, revocation(pki.CertificateHold, base))
	const day = 24 * time.Hour
	var ds []pki.Device
	add := func(group string, status pki.DeviceStatus, ends time.Duration, edit ...func(*pki.Device)) {
		ds = append(ds, device(append([]func(*pki.Device){func(d *pki.Device) {
			d.Group, d.Status = group, status
			if ends != 0 {
				d.Certificate, d.IssuerKeyID, d.Serial, d.NotAfter = pki.Fingerprint{1}, e.issuing.key, pki.SerialNumber([]byte{byte(len(ds) + 1)}), now.Add(ends)
			}
		}}, edit...)...))
	}
	failing := func(d *pki.Device) { d.Failures = 2 }
	failingRenewal := func(d *pki.Device) { d.Failures, d.RenewalFailures = 1, 1 }
	add("", pki.DeviceExpected, 0)
	add("", pki.DeviceExpected, 0, failing)
	add("", pki.DeviceEnrolled, -time.Second)
	add("", pki.DeviceEnrolled, day, failingRenewal)
	add("ü", pki.DeviceEnrolled, 7*day-time.Second)
	add("ü", pki.DeviceEnrolled, 7*day)
	add("ü", pki.DeviceEnrolled, 30*day)
	add("ü", pki.DeviceEnrolled, 90*day, failing)
	add("ü", pki.DeviceEnrolled, day, func(d *pki.Device) { d.Serial = revoked.Serial })
	add("B", pki.DeviceBlocked, day, failingRenewal)
	add("B", pki.DeviceRetired, -day)
	e.create(ds...)
	got, err := e.Fleet(ctx, now)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "Fleet", got, store.Fleet{Groups: []store.GroupFigures{
		{Status: map[pki.DeviceStatus]int{pki.DeviceExpected: 2, pki.DeviceEnrolled: 2}, Ended: 1, In7: 1, In30: 1, In90: 1, Failing: 2, FailingRenewals: 1},
		{Group: "B", Status: map[pki.DeviceStatus]int{pki.DeviceBlocked: 1, pki.DeviceRetired: 1}},
		{Group: "ü", Status: map[pki.DeviceStatus]int{pki.DeviceEnrolled: 5}, In7: 1, In30: 2, In90: 3, Revoked: 1, Failing: 1},
	}})
}

// deviceVerbs are those of this file.
func (e *env) deviceVerbs() []verb {
	d := device()
	e.create(d)
	version := 1
	return []verb{
		{"CreateDevices", func(ctx context.Context) error {
			return e.CreateDevices(ctx, []pki.Device{device()}, record("device.create", base))
		}},
		{"Device", func(ctx context.Context) error { _, err := e.Device(ctx, d.ID); return err }},
		{"ListDevices", func(ctx context.Context) error {
			_, _, err := e.ListDevices(ctx, store.DeviceFilter{}, store.Page{})
			return err
		}},
		{"CountDevices", func(ctx context.Context) error { _, err := e.CountDevices(ctx, store.DeviceFilter{}, 10); return err }},
		{"ChangeDevice", func(ctx context.Context) error {
			version++
			d.Version = version
			err := e.ChangeDevice(ctx, store.DeviceChange{Device: d, Record: record("device.change", base)})
			if err != nil {
				version--
			}
			return err
		}},
		{"DevicesToRevoke", func(ctx context.Context) error { _, err := e.DevicesToRevoke(ctx, 10); return err }},
		{"DeviceRevoked", func(ctx context.Context) error { return e.DeviceRevoked(ctx, d.ID, base) }},
		{"NoteContacts", func(ctx context.Context) error {
			return e.NoteContacts(ctx, []store.Contact{{Device: d.ID, At: base}}, nil)
		}},
		{"Fleet", func(ctx context.Context) error { _, err := e.Fleet(ctx, base); return err }},
		{"Refusals", func(ctx context.Context) error { _, err := e.Refusals(ctx, 0); return err }},
		{"PruneRefusals", func(ctx context.Context) error { _, err := e.PruneRefusals(ctx, 1, 10); return err }},
	}
}

// fillDevices gives the tables of devices rows of every kind.
func (e *env) fillDevices() {
	e.t.Helper()
	e.create(wholeDevice(), device())
	refusals := []store.Refusal{refused(20_000, "default", "enroll", "challenge", 5), refused(20_001, "ü", "renew", "names", 1)}
	if err := e.NoteContacts(e.t.Context(), nil, refusals); err != nil {
		e.t.Fatalf("NoteContacts: %v", err)
	}
}
