package web

import (
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestSpan(t *testing.T) {
	tests := []struct {
		seconds int64
		want    string
	}{
		{0, "under a minute"},
		{59, "under a minute"},
		{60, "1 minute"},
		{90, "2 minutes"},
		{3569, "59 minutes"},
		{3599, "1 hour"},
		{3600, "1 hour"},
		{47 * 3600, "47 hours"},
		{48*3600 - 1, "2 days"},
		{48 * 3600, "2 days"},
		{90*86400 - 1, "90 days"},
		{365*86400 - 1, "365 days"},
		{1094 * 86400, "1,094 days"},
		{1095 * 86400, "3 years"},
		{7305*86400 - 1, "20 years"},
		{1_234_567 * 86400, "3,380 years"},
	}
	for _, test := range tests {
		if got := span(test.seconds); got != test.want {
			t.Errorf("got %q, want %q, for %d seconds", got, test.want, test.seconds)
		}
	}
}

func TestValidity(t *testing.T) {
	now := time.Date(2027, 3, 14, 9, 26, 53, 0, time.UTC)
	day := func(n int) time.Time { return now.AddDate(0, 0, n) }
	tests := []struct {
		name    string
		c       Certificate
		want    state
		wantFor string
	}{
		{"young root", Certificate{NotBefore: day(-1), NotAfter: day(7000)}, state{"ok", "valid"}, "19 years left"},
		{"old root", Certificate{NotBefore: day(-7000), NotAfter: day(179)}, state{"warn", "expires soon"}, "179 days left"},
		{"last second", Certificate{NotBefore: day(-10), NotAfter: now}, state{"warn", "expires soon"}, "under a minute left"},
		{"over", Certificate{NotBefore: day(-10), NotAfter: now.Add(-time.Second)}, state{"bad", "expired"}, "under a minute ago"},
		{"future", Certificate{NotBefore: day(1), NotAfter: day(10)}, state{"warn", "not yet valid"}, "valid in 24 hours"},
		{"short life", Certificate{NotBefore: day(-1), NotAfter: day(19)}, state{"ok", "valid"}, "19 days left"},
		{"no end", Certificate{NotBefore: day(-1), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}, state{"ok", "valid"}, "7,973 years left"},
		{"revoked", Certificate{NotBefore: day(-1), NotAfter: day(9), Revoked: now}, state{"bad", "revoked"}, "since 2027-03-14 09:26 UTC"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, left := validity(test.c, now); got != test.want || left != test.wantFor {
				t.Errorf("got %v, %q, want %v, %q", got, left, test.want, test.wantFor)
			}
		})
	}
}

func TestCRLState(t *testing.T) {
	now := time.Date(2027, 3, 14, 9, 26, 53, 0, time.UTC)
	tests := []struct {
		name      string
		age, left time.Duration
		want      state
	}{
		{"new", time.Minute, 7 * 24 * time.Hour, state{"ok", "fresh"}},
		{"old enough to wonder", 6 * 24 * time.Hour, 24 * time.Hour, state{"warn", "stale soon"}},
		{"stale", 8 * 24 * time.Hour, -time.Second, state{"bad", "stale"}},
		{"future", -time.Minute, 24 * time.Hour, state{"warn", "from the future"}},
	}
	for _, test := range tests {
		v, err := newCRLView(CRL{ThisUpdate: now.Add(-test.age), NextUpdate: now.Add(test.left)}, now)
		if err != nil || v.State != test.want {
			t.Errorf("%s: got %v, %v, want %v", test.name, v.State, err, test.want)
		}
	}
	if v, err := newCRLView(CRL{}, now); err != nil || v.State.Level != "bad" {
		t.Errorf("missing CRL: got %v, %v", v.State, err)
	}
}

// TestCRLAge: the age is that of the CRL, not of its thisUpdate, which lies before.
func TestCRLAge(t *testing.T) {
	now := time.Date(2027, 3, 14, 9, 26, 53, 0, time.UTC)
	c := CRL{ThisUpdate: now.Add(-time.Hour), NextUpdate: now.AddDate(0, 0, 7)}
	if v, err := newCRLView(c, now); err != nil || v.Age != "1 hour ago" || !v.CreatedAt.Equal(c.ThisUpdate) {
		t.Errorf("without CreatedAt: %q, made %v, %v", v.Age, v.CreatedAt, err)
	}
	c.CreatedAt = now.Add(-2 * time.Minute)
	if v, err := newCRLView(c, now); err != nil || v.Age != "2 minutes ago" || v.State.Level != "ok" {
		t.Errorf("with CreatedAt: %q, %v, %v", v.Age, v.State, err)
	}
	c.CreatedAt = now.Add(10 * time.Minute)
	if v, err := newCRLView(c, now); err != nil || v.Age != "in 10 minutes" || v.State.Text != "from the future" {
		t.Errorf("made in the future: %q, %v, %v", v.Age, v.State, err)
	}
}

func TestKeyName(t *testing.T) {
	for in, want := range map[string]string{
		"p-256": "ECDSA P-256", "p-521": "ECDSA P-521", "rsa-2048": "RSA 2048", "ed25519": "Ed25519", "ECDSA P-384": "ECDSA P-384", "": "",
	} {
		if got := keyName(in); got != want {
			t.Errorf("keyName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSlugAndCommonName(t *testing.T) {
	for in, want := range map[string]string{
		"Example Private CA": "example-private-ca", " --Zürich!! ": "z-rich", "東京": "", "": "",
		"../../etc/passwd": "etc-passwd", strings.Repeat("a b", 30): "a-ba-ba-ba-ba-ba-ba-ba-ba-ba-ba-ba-ba-ba",
	} {
		if got := slug(in); got != want {
			t.Errorf("slug: got %q, want %q, for %q", got, want, in)
		}
	}
	for in, want := range map[string]string{
		"CN=Root,O=Example": "Root", "O=Example, CN=Root CA": "Root CA", `CN=Acme\, Inc. CA,C=DE`: "Acme, Inc. CA",
		"O=NotCN=x": "O=NotCN=x", "O=Example": "O=Example", "": "Certificate without a subject", "C=DE+CN=R": "R",
	} {
		if got := commonName(in); got != want {
			t.Errorf("commonName: got %q, want %q, for %q", got, want, in)
		}
	}
}

func FuzzVisible(f *testing.F) {
	f.Add("CN=Example Root CA")
	f.Add("\u202e\x1b[0m\xff\u200b")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range visible(s) {
			if !unicode.IsPrint(r) || blank(r) {
				t.Errorf("got %q with %U, for %q", visible(s), r, s)
			}
		}
		for _, r := range slug(s) {
			if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-", r) {
				t.Errorf("slug: got %q, for %q", slug(s), s)
			}
		}
	})
}
