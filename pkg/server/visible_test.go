package server

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// TestRevocationTellsWhenItWasSeen: decided, in OCSP, on a CRL, in this order, over REST; and the histograms have it.
func TestRevocationTellsWhenItWasSeen(t *testing.T) {
	s := runServer(t, nil)
	id := s.issue()
	began := time.Now()
	s.api("POST", "/certificates/"+id+"/revoke", map[string]any{"reason": "superseded"})
	ended := time.Now()
	var c struct {
		Revocation struct {
			RevokedAt  time.Time  `json:"revoked_at"`
			DecidedAt  time.Time  `json:"decided_at"`
			FirstCRLAt *time.Time `json:"first_crl_at"`
			FirstOCSP  *time.Time `json:"first_ocsp_at"`
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, answer := s.api("GET", "/certificates/"+id, nil)
		if err := json.Unmarshal(answer, &c); err != nil {
			t.Fatalf("%v: %s", err, answer)
		}
		if c.Revocation.FirstCRLAt != nil && c.Revocation.FirstOCSP != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", answer)
		}
	}
	r := c.Revocation
	// The CA's times are cut to microseconds.
	if d := r.DecidedAt; d.Before(began.Truncate(time.Microsecond)) || d.After(ended) || !r.RevokedAt.Equal(d.Truncate(time.Second)) {
		t.Errorf("decided at %v, between %v and %v; revoked at %v", d, began, ended, r.RevokedAt)
	}
	if r.FirstOCSP.Before(r.DecidedAt) || r.FirstOCSP.After(ended) {
		t.Errorf("in OCSP at %v: after the decision at %v, and before the answer at %v", r.FirstOCSP, r.DecidedAt, ended)
	}
	if r.FirstCRLAt.Before(*r.FirstOCSP) {
		t.Errorf("on a CRL at %v, in OCSP at %v", r.FirstCRLAt, r.FirstOCSP)
	}
	_, _, scrape := s.ask("GET", s.MetricsURL, "", nil)
	for _, want := range []string{`certwright_revocation_visible_seconds_count{where="crl"} 1`, `certwright_revocation_visible_seconds_count{where="ocsp"} 1`} {
		if !bytes.Contains(scrape, []byte("\n"+want+"\n")) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
