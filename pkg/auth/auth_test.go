package auth_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

type tokens []pki.Token

func (t tokens) AllTokens(context.Context) ([]pki.Token, error) { return t, nil }

func TestAuthenticate(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	make := func(name string, change func(*pki.Token)) (string, pki.Token) {
		text, rec := auth.NewToken()
		rec.Name, rec.Role = name, pki.RoleOperator
		change(&rec)
		return text, rec
	}
	good, goodRec := make("good", func(r *pki.Token) { r.Issuers = []string{"issuing"} })
	ending, endingRec := make("ending", func(r *pki.Token) { r.ExpiresAt = now.Add(time.Nanosecond) })
	expired, expiredRec := make("expired", func(r *pki.Token) { r.ExpiresAt = now })
	revoked, revokedRec := make("revoked", func(r *pki.Token) { r.RevokedAt = now.Add(-time.Hour) })
	stranger, _ := auth.NewToken()
	a, err := auth.NewTokens(tokens{goodRec, endingRec, expiredRec, revokedRec}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(good); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("before the first load: %v, want Unauthenticated", err)
	}
	if err := a.Follow(t.Context(), store.Head{ConfigChange: 1}); err != nil {
		t.Fatal(err)
	}
	id := strings.Split(good, "_")[1]
	tests := []struct {
		name, text string
		ok         bool
		detail     string
	}{
		{"good", good, true, ""},
		{"in its last nanosecond", ending, true, ""},
		{"expired", expired, false, "expired"},
		{"revoked", revoked, false, "revoked"},
		{"of another server", stranger, false, "not valid"},
		{"empty", "", false, "not valid"},
		{"id with another secret", "cwt_" + id + "_" + stranger[len(stranger)-43:], false, "not valid"},
		{"revoked one's id with another secret", "cwt_" + revokedRec.ID + "_" + stranger[len(stranger)-43:], false, "not valid"},
		{"cut", good[:len(good)-1], false, "not valid"},
		{"no secret", "cwt_" + id + "_", false, "not valid"},
	}
	for _, tt := range tests {
		p, err := a.Authenticate(tt.text)
		if tt.ok {
			if err != nil || p.Role != pki.RoleOperator {
				t.Errorf("%s: %+v, %v", tt.name, p, err)
			}
			continue
		}
		if !fault.Is(err, fault.Unauthenticated) || !strings.Contains(err.Error(), tt.detail) || p.Role != pki.RoleNone {
			t.Errorf("%s: %+v, %v, want Unauthenticated with %q", tt.name, p, err, tt.detail)
		}
	}
}

func TestRequire(t *testing.T) {
	roles := []pki.Role{pki.RoleNone, pki.RoleAuditor, pki.RoleEnroller, pki.RoleOperator, pki.RoleAdministrator}
	for _, have := range roles {
		for _, need := range roles[1:] {
			err := auth.Require(pki.Principal{Role: have}, need, false)
			want := have >= need && (have != pki.RoleEnroller || need != pki.RoleAuditor)
			if (err == nil) != want {
				t.Errorf("have %v, need %v: %v, want allowed = %v", have, need, err, want)
			}
		}
	}
	if err := auth.Require(pki.Principal{Role: pki.RoleEnroller}, pki.RoleAuditor, true); err != nil {
		t.Errorf("an enroller reading his own: %v", err)
	}
	if err := auth.Require(pki.Principal{Role: pki.RoleNone}, pki.RoleAuditor, true); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("nobody: %v, want Unauthenticated", err)
	}
}

func TestNobodyGrantsMoreThanHeHas(t *testing.T) {
	limited := pki.Principal{Role: pki.RoleAdministrator, Issuers: []string{"a", "b"}, Profiles: []string{"server"}}
	tests := []struct {
		name  string
		p     pki.Principal
		token pki.Token
		ok    bool
	}{
		{"narrower", limited, pki.Token{Role: pki.RoleOperator, Issuers: []string{"a"}, Profiles: []string{"server"}}, true},
		{"no limit where the maker has one", limited, pki.Token{Role: pki.RoleOperator, Profiles: []string{"server"}}, false},
		{"another profile", limited, pki.Token{Role: pki.RoleOperator, Issuers: []string{"a"}, Profiles: []string{"server", "client"}}, false},
		{"higher role", pki.Principal{Role: pki.RoleOperator}, pki.Token{Role: pki.RoleAdministrator}, false},
		{"later end than the maker's", pki.Principal{Role: pki.RoleAdministrator, ExpiresAt: time.Unix(1000, 0)}, pki.Token{Role: pki.RoleAuditor, ExpiresAt: time.Unix(1001, 0)}, false},
		{"no end where the maker has one", pki.Principal{Role: pki.RoleAdministrator, ExpiresAt: time.Unix(1000, 0)}, pki.Token{Role: pki.RoleAuditor}, false},
		{"earlier end than the maker's", pki.Principal{Role: pki.RoleAdministrator, ExpiresAt: time.Unix(1000, 0)}, pki.Token{Role: pki.RoleAuditor, ExpiresAt: time.Unix(999, 0)}, true},
		{"narrower names", pki.Principal{Role: pki.RoleAdministrator, Names: []string{"DNS:*.example.com"}}, pki.Token{Role: pki.RoleEnroller, Names: []string{"DNS:*.dev.example.com", "DNS:www.example.com"}}, true},
		{"other names", pki.Principal{Role: pki.RoleAdministrator, Names: []string{"DNS:*.example.com"}}, pki.Token{Role: pki.RoleEnroller, Names: []string{"DNS:www.example.com", "DNS:*"}}, false},
		{"any names", pki.Principal{Role: pki.RoleAdministrator, Names: []string{"DNS:*"}}, pki.Token{Role: pki.RoleEnroller}, false},
		{"slower", pki.Principal{Role: pki.RoleAdministrator, Rate: 60}, pki.Token{Role: pki.RoleEnroller, Rate: 60}, true},
		{"faster", pki.Principal{Role: pki.RoleAdministrator, Rate: 60}, pki.Token{Role: pki.RoleEnroller, Rate: 61}, false},
		{"no rate where the maker has one", pki.Principal{Role: pki.RoleAdministrator, Rate: 60}, pki.Token{Role: pki.RoleEnroller}, false},
		{"unlimited maker", pki.Principal{Role: pki.RoleAdministrator}, pki.Token{Role: pki.RoleAdministrator}, true},
	}
	for _, tt := range tests {
		if err := auth.MayGrant(tt.p, tt.token); (err == nil) != tt.ok {
			t.Errorf("%s: %v, want allowed = %v", tt.name, err, tt.ok)
		}
	}
}
