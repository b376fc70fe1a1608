package pki_test

import (
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/google/go-cmp/cmp"
)

func TestReasonNumbers(t *testing.T) {
	// RFC 5280, Section 5.3.1.
	want := map[pki.Reason]string{
		0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
		5: "cessationOfOperation", 6: "certificateHold", 8: "removeFromCRL", 9: "privilegeWithdrawn", 10: "aACompromise",
	}
	for number, name := range want {
		if number.String() != name {
			t.Errorf("Reason(%d) = %s, want %s", int(number), number, name)
		}
		if got, err := pki.ParseReason(name); err != nil || got != number {
			t.Errorf("ParseReason(%q) = %v, %v; want %d", name, got, err, int(number))
		}
	}
	for _, unused := range []pki.Reason{-1, 7, 11} {
		if got, err := pki.ParseReason(unused.String()); err == nil {
			t.Errorf("ParseReason(%q) = %v, want an error", unused.String(), got)
		}
	}
}

func TestParseReason(t *testing.T) {
	tests := []struct {
		text string
		want pki.Reason
		ok   bool
	}{
		{"", pki.Unspecified, true},
		{"keycompromise", pki.KeyCompromise, true},
		{"KEY-COMPROMISE", pki.KeyCompromise, true},
		{"key_compromise", pki.KeyCompromise, true},
		{"cessation-of-operation", pki.CessationOfOperation, true},
		{"key compromise", 0, false},
		{"7", 0, false},
		{"lost", 0, false},
	}
	for _, tt := range tests {
		if got, err := pki.ParseReason(tt.text); got != tt.want || (err == nil) != tt.ok {
			t.Errorf("ParseReason(%q) = %v, %v; want %v, ok %v", tt.text, got, err, tt.want, tt.ok)
		}
	}
}

func TestReasonNamesLeavesOutWhatIsNotAsked(t *testing.T) {
	want := []string{
		"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
		"privilegeWithdrawn", "aACompromise",
	}
	if diff := cmp.Diff(want, pki.ReasonNames()); diff != "" {
		t.Errorf("ReasonNames (-want +got):\n%s", diff)
	}
}

var (
	t0 = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	t1 = t0.Add(time.Hour)
	t2 = t0.Add(2 * time.Hour)
)

// TestTransition is the whole table: every state, every action, every sort of change.
func TestTransition(t *testing.T) {
	hold := &pki.Revocation{Status: pki.OnHold, Reason: pki.CertificateHold, RevokedAt: t0}
	holdKnown := &pki.Revocation{Status: pki.OnHold, Reason: pki.CertificateHold, RevokedAt: t0, InvalidityDate: t0}
	revoked := &pki.Revocation{Status: pki.Revoked, Reason: pki.Superseded, RevokedAt: t0}
	revokedKnown := &pki.Revocation{Status: pki.Revoked, Reason: pki.KeyCompromise, RevokedAt: t0, InvalidityDate: t0}
	tests := []struct {
		name    string
		current *pki.Revocation
		action  pki.Action
		next    pki.Revocation
		want    *pki.Revocation
		kind    fault.Kind // when refused
		refused bool
	}{
		{
			name: "good, revoke", action: pki.ActionRevoke, next: pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: t1, InvalidityDate: t0},
			want: &pki.Revocation{Status: pki.Revoked, Reason: pki.KeyCompromise, RevokedAt: t1, InvalidityDate: t0},
		},
		{
			name: "good, hold", action: pki.ActionHold, next: pki.Revocation{RevokedAt: t1},
			want: &pki.Revocation{Status: pki.OnHold, Reason: pki.CertificateHold, RevokedAt: t1},
		},
		{
			name: "good, hold, whatever the reason given", action: pki.ActionHold, next: pki.Revocation{Reason: pki.Superseded, RevokedAt: t1},
			want: &pki.Revocation{Status: pki.OnHold, Reason: pki.CertificateHold, RevokedAt: t1},
		},
		{name: "good, release", action: pki.ActionRelease, refused: true, kind: fault.Conflict},

		{
			name: "hold, revoke keeps the date", current: hold, action: pki.ActionRevoke,
			next: pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: t1},
			want: &pki.Revocation{Status: pki.Revoked, Reason: pki.KeyCompromise, RevokedAt: t0},
		},
		{
			name: "hold, revoke without a reason", current: holdKnown, action: pki.ActionRevoke,
			next: pki.Revocation{RevokedAt: t1},
			want: &pki.Revocation{Status: pki.Revoked, RevokedAt: t0, InvalidityDate: t0},
		},
		{name: "hold, hold", current: hold, action: pki.ActionHold, refused: true, kind: fault.Conflict},
		{name: "hold, release", current: hold, action: pki.ActionRelease, want: nil},

		{
			name: "revoked, the same again", current: revoked, action: pki.ActionRevoke,
			next: pki.Revocation{Reason: pki.Superseded, RevokedAt: t1}, refused: true, kind: fault.AlreadyRevoked,
		},
		{
			name: "revoked, without a reason", current: revoked, action: pki.ActionRevoke,
			next: pki.Revocation{RevokedAt: t1}, refused: true, kind: fault.AlreadyRevoked,
		},
		{
			name: "revoked, another reason", current: revoked, action: pki.ActionRevoke,
			next: pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: t1, InvalidityDate: t2},
			want: &pki.Revocation{Status: pki.Revoked, Reason: pki.KeyCompromise, RevokedAt: t0, InvalidityDate: t2},
		},
		{
			name: "revoked, the same reason, a new invalidity date", current: revokedKnown, action: pki.ActionRevoke,
			next: pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: t1, InvalidityDate: t2},
			want: &pki.Revocation{Status: pki.Revoked, Reason: pki.KeyCompromise, RevokedAt: t0, InvalidityDate: t2},
		},
		{
			name: "revoked, the same reason and invalidity date", current: revokedKnown, action: pki.ActionRevoke,
			next: pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: t1, InvalidityDate: t0}, refused: true, kind: fault.AlreadyRevoked,
		},
		{
			name: "revoked, another reason keeps the invalidity date", current: revokedKnown, action: pki.ActionRevoke,
			next: pki.Revocation{Reason: pki.CACompromise, RevokedAt: t1},
			want: &pki.Revocation{Status: pki.Revoked, Reason: pki.CACompromise, RevokedAt: t0, InvalidityDate: t0},
		},
		{name: "revoked, hold", current: revoked, action: pki.ActionHold, refused: true, kind: fault.AlreadyRevoked},
		{name: "revoked, release", current: revoked, action: pki.ActionRelease, refused: true, kind: fault.AlreadyRevoked},

		{name: "no action, good", action: 0, refused: true, kind: fault.BadRequest},
		{name: "no action, hold", current: hold, action: 0, refused: true, kind: fault.BadRequest},
		{name: "no action, revoked", current: revoked, action: 4, refused: true, kind: fault.BadRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var before pki.Revocation
			if tt.current != nil {
				before = *tt.current
			}
			got, err := pki.Transition(tt.current, tt.action, tt.next)
			if tt.refused {
				if !fault.Is(err, tt.kind) || got != nil {
					t.Fatalf("Transition = %+v, %v; want a refusal of kind %v", got, err, tt.kind)
				}
			} else if err != nil {
				t.Fatalf("Transition: %v", err)
			} else if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Transition (-want +got):\n%s", diff)
			}
			if tt.current != nil && before != *tt.current {
				t.Errorf("Transition changed its input to %+v, was %+v", *tt.current, before)
			}
		})
	}
}

func TestNamesOfStatesAndActions(t *testing.T) {
	for got, want := range map[string]string{
		pki.Good.String(): "good", pki.Revoked.String(): "revoked", pki.OnHold.String(): "hold", pki.Status(9).String(): "unknown",
		pki.ActionRevoke.String(): "revoke", pki.ActionHold.String(): "hold", pki.ActionRelease.String(): "release",
		pki.Action(0).String(): "none", pki.Action(-3).String(): "none",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRoles(t *testing.T) {
	for _, role := range []pki.Role{pki.RoleAuditor, pki.RoleEnroller, pki.RoleOperator, pki.RoleAdministrator} {
		if got, err := pki.ParseRole(role.String()); err != nil || got != role {
			t.Errorf("ParseRole(%q) = %v, %v", role, got, err)
		}
	}
	for _, text := range []string{"", "none", "Administrator", "root"} {
		if got, err := pki.ParseRole(text); err == nil || got != pki.RoleNone {
			t.Errorf("ParseRole(%q) = %v, %v; want an error", text, got, err)
		}
	}
}
