package e2e

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/campaign"
	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// TestKillCampaign kills the server in the middle of a campaign. After the restart it goes on by itself, and ends with every
// certificate revoked once: a record for each, and one each for the campaign's beginning and its end.
func TestKillCampaign(t *testing.T) {
	for _, kind := range []string{"SQLite", "Postgres"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			o := Options{Config: "limits: {revocation_step: 2}\n"}
			if kind == "Postgres" {
				o.Database = pgtest.DSN(t)
			}
			s := Start(t, o)
			// The machine may have been away between the first step that was seen and the kill, and the campaign through.
			for round := 1; ; round++ {
				if inTheMiddle := killCampaign(t, s, fmt.Sprintf("round-%d.example.com", round)); inTheMiddle {
					break
				}
				if round == 5 {
					t.Fatal("every campaign was through before the kill")
				}
			}
			s.Stop()
			checkStore(t, s)
		})
	}
}

func killCampaign(t *testing.T, s *Server, name string) (inTheMiddle bool) {
	t.Helper()
	const n = 100
	request := newFaultCSR(t, name)
	ids := make([]string, n)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < n; i += 8 {
				c, err := s.Client.Issue(t.Context(), client.IssueRequest{CSR: request, Profile: "server"})
				if err != nil {
					t.Error(err)
					return
				}
				ids[i] = c.ID
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	r := client.RevocationRequest{Query: client.CertificateQuery{Text: name}, Reason: "superseded"}
	plan, err := s.Client.PlanRevocation(t.Context(), r)
	if err != nil || plan.Count != n {
		t.Fatalf("the dry run counts %d, %v; want %d", plan.Count, err, n)
	}
	c, err := s.Client.BeginRevocation(t.Context(), r, plan.Confirm)
	if err != nil {
		t.Fatal(err)
	}
	until := func(what string, done func() bool) {
		t.Helper()
		eventually(t, time.Minute, what, func() error {
			var err error
			if c, err = s.Client.Revocation(t.Context(), c.ID); err == nil && !done() {
				err = fmt.Errorf("%s, %d revoked", c.State, c.Revoked)
			}
			return err
		})
	}
	until("a first step", func() bool { return c.Revoked > 0 })
	s.Kill()
	killed := time.Now()
	s.Again()
	until("the campaign's end", func() bool { return c.State == "done" })
	if c.Revoked != n || c.Skipped != 0 || c.Expected != n || c.EndedAt == nil {
		t.Fatalf("the campaign ended as %+v", c)
	}

	records := map[string]int{}
	for _, action := range []string{audit.ActionRevoke, campaign.ActionBegin, campaign.ActionEnd} {
		for q := (client.AuditQuery{Action: action, Limit: 1000}); ; {
			page, err := s.Client.Audit(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Events {
				records[e.Action+" "+e.Target]++
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
	}
	for _, id := range ids {
		if got := records[audit.ActionRevoke+" certificate/"+id]; got != 1 {
			t.Errorf("certificate %s has %d records of its revocation", id, got)
		}
	}
	for _, action := range []string{campaign.ActionBegin, campaign.ActionEnd} {
		if got := records[action+" revocation/"+c.ID]; got != 1 {
			t.Errorf("the campaign has %d records %s", got, action)
		}
	}
	inParallel(t, ids, func(id string) error {
		at, err := s.Client.Certificate(t.Context(), id)
		if err == nil && at.Status != "revoked" {
			err = errors.New("its status is " + at.Status)
		}
		return err
	})
	watch := newCRLWatch(t)
	eventually(t, time.Minute, "all of them on the CRL", func() error {
		l := watch.fetch(s, faultIssuer(t, s, "issuing").keyID)
		if l == nil || len(l.RevokedCertificateEntries) < n {
			return errors.New("not yet")
		}
		return nil
	})
	return c.EndedAt.After(killed)
}
