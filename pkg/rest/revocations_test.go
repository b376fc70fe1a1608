package rest

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/store"
)

// ended waits until a campaign has ended.
func (r *rig) ended(who, id string) RevocationCampaign {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var c RevocationCampaign
		r.must(who, "GET", "/revocations/"+id, nil, &c)
		if c.EndedAt != nil {
			return c
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("after a minute the campaign is %+v", c)
		}
	}
}

// status returns the status of a certificate with the reason of its revocation.
func (r *rig) status(c Certificate) string {
	r.t.Helper()
	var got Certificate
	r.must("administrator", "GET", "/certificates/"+c.ID, nil, &got)
	if got.Revocation == nil {
		return got.Status
	}
	return got.Status + " " + got.Revocation.Reason
}

func TestRevokeByQuery(t *testing.T) {
	r := newRig(t)
	var bad []Certificate
	for i := range 3 {
		bad = append(bad, r.issue("enroller", fmt.Sprintf("bad-%d", i)))
	}
	fine := r.issue("operator", "fine")
	r.must("operator", "POST", "/certificates/"+bad[1].ID+"/revoke", map[string]any{"reason": "superseded"}, nil)
	body := map[string]any{"query": map[string]any{"text": "BAD-", "requester": "token:enroller"}, "reason": "cessationOfOperation", "invalidity_date": "2026-01-02T03:04:05Z"}
	var plan RevocationPlan
	r.must("operator", "POST", "/revocations/dry-run", body, &plan)
	if plan.Count != 2 || len(plan.Sample) != 2 || plan.Administrator {
		t.Fatalf("the dry run says %+v, want two", plan)
	}
	if got := r.status(bad[0]); got != "valid" {
		t.Errorf("after the dry run a certificate is %s", got)
	}
	var list struct{ Certificates []Certificate }
	r.must("operator", "GET", "/certificates?"+url.Values{"text": {"BAD-"}, "requester": {"token:enroller"}, "status": {"valid,hold"}}.Encode(), nil, &list)
	if len(list.Certificates) != len(plan.Sample) || list.Certificates[0].ID != plan.Sample[0].ID {
		t.Errorf("a list of the same query has %d certificates, the dry run %d", len(list.Certificates), len(plan.Sample))
	}
	if status, answer := r.call("operator", "POST", "/revocations", body); status != http.StatusUnprocessableEntity && status != http.StatusBadRequest {
		t.Errorf("without a confirmation: %d %s", status, answer)
	}
	body["confirm"] = "1-2-3"
	if status, answer := r.call("operator", "POST", "/revocations", body); status != http.StatusConflict {
		t.Errorf("with a wrong confirmation: %d %s, want 409", status, answer)
	}
	body["confirm"] = plan.Confirm
	if status, answer := r.call("administrator", "POST", "/revocations", body); status != http.StatusConflict {
		t.Errorf("with another's confirmation: %d %s, want 409", status, answer)
	}
	var c RevocationCampaign
	r.must("operator", "POST", "/revocations", body, &c)
	if c.Expected != 2 || c.CreatedBy != "token:operator" || c.Query == nil || c.Query.Text != "BAD-" {
		t.Errorf("the campaign is %+v", c)
	}
	if c = r.ended("auditor", c.ID); c.State != "done" || c.Revoked != 2 {
		t.Errorf("the campaign ended as %+v, want 2 revoked", c)
	}
	for cert, want := range map[*Certificate]string{&bad[0]: "revoked cessationOfOperation", &bad[1]: "revoked superseded", &bad[2]: "revoked cessationOfOperation", &fine: "valid"} {
		if got := r.status(*cert); got != want {
			t.Errorf("%s is %s, want %s", cert.Subject, got, want)
		}
	}
	if status, _ := r.call("operator", "POST", "/revocations/"+c.ID+"/pause", nil); status != http.StatusConflict {
		t.Errorf("pausing what is done: %d, want 409", status)
	}
	for name, query := range map[string]map[string]any{"no condition": {}, "no such field": {"colour": "red"}, "no such status": {"status": []string{"lost"}}, "bad serial": {"serial": "x"}} {
		if status, answer := r.call("administrator", "POST", "/revocations/dry-run", map[string]any{"query": query}); status >= 500 || status < 400 {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	for _, reason := range []string{"certificateHold", "removeFromCRL", "cACompromise", "boredom"} {
		if status, answer := r.call("administrator", "POST", "/revocations/dry-run", map[string]any{"query": map[string]any{"text": "x"}, "reason": reason}); status >= 500 || status < 400 {
			t.Errorf("reason %s: %d %s", reason, status, answer)
		}
	}
}

// TestRevokeWithinLimits: a token that is limited to a profile revokes nothing else, and sees no campaign but its own.
func TestRevokeWithinLimits(t *testing.T) { onBothStores(t, revokeWithinLimits) }

func revokeWithinLimits(t *testing.T, r *rig) {
	client := r.issue("operator", "both")
	var server Certificate
	r.must("operator", "POST", "/certificates", map[string]any{"csr": newCSR(t, "both.example.com"), "profile": "server", "sans": []string{"DNS:both.example.com"}}, &server)
	r.newToken("clients", map[string]any{"role": "operator", "profiles": []string{"client"}})
	query := map[string]any{"query": map[string]any{"text": "both"}}
	var plan RevocationPlan
	r.must("clients", "POST", "/revocations/dry-run", query, &plan)
	if plan.Count != 1 || plan.Sample[0].ID != client.ID {
		t.Fatalf("the dry run of a limited token says %+v", plan)
	}
	query["confirm"] = plan.Confirm
	var own, others RevocationCampaign
	r.must("clients", "POST", "/revocations", query, &own)
	r.ended("clients", own.ID)
	if got := r.status(server); got != "valid" {
		t.Errorf("a certificate of another profile is %s", got)
	}
	if status, _ := r.call("clients", "POST", "/revocations/dry-run", map[string]any{"query": map[string]any{"profile": "server"}}); status != http.StatusConflict {
		t.Errorf("a query for another profile: %d, want 409", status)
	}
	delete(query, "confirm")
	r.must("operator", "POST", "/revocations/dry-run", query, &plan)
	query["confirm"] = plan.Confirm
	r.must("operator", "POST", "/revocations", query, &others)
	r.ended("operator", others.ID)
	for path, want := range map[string]int{"/revocations/" + own.ID: http.StatusOK, "/revocations/" + others.ID: http.StatusNotFound} {
		if status, _ := r.call("clients", "GET", path, nil); status != want {
			t.Errorf("GET %s as a limited token: %d, want %d", path, status, want)
		}
	}
	if status, _ := r.call("clients", "POST", "/revocations/"+others.ID+"/cancel", nil); status != http.StatusNotFound {
		t.Errorf("cancelling another's: %d, want 404", status)
	}
	var list struct{ Revocations []RevocationCampaign }
	r.must("clients", "GET", "/revocations", nil, &list)
	if len(list.Revocations) != 1 || list.Revocations[0].ID != own.ID {
		t.Errorf("a limited token lists %+v", list.Revocations)
	}
	if r.must("auditor", "GET", "/revocations", nil, &list); len(list.Revocations) != 2 {
		t.Errorf("an auditor lists %d campaigns, want 2", len(list.Revocations))
	}
	for path, body := range keyBodies(client.SPKISHA256) {
		if status, _ := r.call("clients", "POST", path, body); status != http.StatusForbidden {
			t.Errorf("POST %s as a limited token: %d, want 403", path, status)
		}
	}
}

// keyBodies are requests about a key, by their paths.
func keyBodies(hash string) map[string]any {
	return map[string]any{
		"/blocked-keys/dry-run": map[string]any{"spki_sha256": hash}, "/blocked-keys": map[string]any{"spki_sha256": hash, "confirm": "x"},
	}
}

func TestBlockKey(t *testing.T) {
	r := newRig(t)
	stolen := newCSR(t, "stolen")
	var first, second Certificate
	r.must("enroller", "POST", "/certificates", map[string]any{"csr": stolen, "profile": "client"}, &first)
	r.must("operator", "POST", "/certificates", map[string]any{"csr": stolen, "profile": "client"}, &second)
	fine := r.issue("operator", "fine")
	key := map[string]any{"spki_sha256": strings.ToUpper(first.SPKISHA256)}
	var plan RevocationPlan
	r.must("operator", "POST", "/blocked-keys/dry-run", key, &plan)
	if plan.Count != 2 {
		t.Fatalf("the dry run says %+v, want two", plan)
	}
	key["confirm"] = plan.Confirm
	var c RevocationCampaign
	r.must("operator", "POST", "/blocked-keys", key, &c)
	if c.SPKISHA256 != first.SPKISHA256 || c.Reason != "keyCompromise" {
		t.Errorf("the campaign is %+v", c)
	}
	if status, answer := r.call("enroller", "POST", "/certificates", map[string]any{"csr": stolen, "profile": "client"}); status < 400 || !strings.Contains(string(answer), "blocked") {
		t.Errorf("issuing for a blocked key: %d %s", status, answer)
	}
	r.ended("operator", c.ID)
	for cert, want := range map[*Certificate]string{&first: "revoked keyCompromise", &second: "revoked keyCompromise", &fine: "valid"} {
		if got := r.status(*cert); got != want {
			t.Errorf("%s is %s, want %s", cert.Subject, got, want)
		}
	}
	var list struct {
		Keys []BlockedKey
		More bool
	}
	r.must("auditor", "GET", "/blocked-keys", nil, &list)
	if len(list.Keys) != 1 || list.Keys[0].SPKISHA256 != first.SPKISHA256 || list.Keys[0].BlockedBy != "token:operator" || list.Keys[0].Revocation != c.ID || list.More {
		t.Errorf("the blocked keys are %+v", list)
	}
	if r.must("auditor", "GET", "/blocked-keys?own=true&limit=2", nil, &list); len(list.Keys) != 2 || !list.More {
		t.Errorf("with our own, two of them: %+v", list)
	}
	var own BlockedKey
	for _, k := range list.Keys {
		if k.Own {
			own = k
		}
	}
	for path, body := range keyBodies(own.SPKISHA256) {
		if status, answer := r.call("administrator", "POST", path, body); status < 400 || status >= 500 || !strings.Contains(string(answer), "own") {
			t.Errorf("POST %s for a key of ours: %d %s", path, status, answer)
		}
	}
	if status, _ := r.call("administrator", "DELETE", "/blocked-keys/"+own.SPKISHA256, nil); status < 400 || status >= 500 {
		t.Errorf("unblocking a key of ours: %d", status)
	}
	r.must("administrator", "DELETE", "/blocked-keys/"+first.SPKISHA256, nil, nil)
	if status, _ := r.call("administrator", "DELETE", "/blocked-keys/"+first.SPKISHA256, nil); status != http.StatusNotFound {
		t.Errorf("unblocking again: %d, want 404", status)
	}
	r.must("enroller", "POST", "/certificates", map[string]any{"csr": stolen, "profile": "client"}, nil)
	for _, action := range []string{"key.block", "key.unblock"} {
		events, _, err := r.store.AuditEvents(t.Context(), store.AuditFilter{Action: action, Target: "key/" + first.SPKISHA256}, store.Page{})
		if err != nil || len(events) != 1 {
			t.Fatalf("%d records of %s, %v; want 1", len(events), action, err)
		}
		if record, err := audit.Parse(events[0].Bytes); err != nil || record.RequestID == "" && record.Actor == "" {
			t.Errorf("the record is %+v, %v", record, err)
		}
	}
}
