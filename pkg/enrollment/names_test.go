package enrollment_test

import (
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// What a device is called stays in the place that the template gives it.
func TestRender(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, subject string
		sans          []string
		device        pki.Device
		wantSubject   string
		wantSANs      string // "refused" for none
	}{
		{name: "none", device: pki.Device{ID: "a"}},
		{
			name: "all", subject: "CN={device},OU={group},O={owner}", sans: []string{"DNS:{device}.{label:site}.example.com", "IP:{label:ip}", "URI:urn:dev:{device}"},
			device:      pki.Device{ID: "s-17", Group: "hall 3", Owner: "Ops, Inc", Labels: map[string]string{"site": "bonn", "ip": "10.1.2.3"}},
			wantSubject: `CN=s-17,OU=hall 3,O=Ops\, Inc`, wantSANs: "DNS:s-17.bonn.example.com IP:10.1.2.3 URI:urn:dev:s-17",
		},
		{name: "no second attribute", subject: "CN={device},O=Example", device: pki.Device{ID: "a,OU=admins"}, wantSubject: `CN=a\,OU=admins,O=Example`},
		{name: "braces", subject: "CN={{{device}}}", device: pki.Device{ID: "a"}, wantSubject: "CN={a}"},
		{name: "a braced value is no placeholder", subject: "CN={device}", device: pki.Device{ID: "{owner}", Owner: "x"}, wantSubject: "CN={owner}"},
		{name: "whole DNS name", sans: []string{"DNS:{device}"}, device: pki.Device{ID: "a.example.com"}, wantSANs: "DNS:a.example.com"},
		{name: "not one label", sans: []string{"DNS:{device}.example.com"}, device: pki.Device{ID: "a.b"}, wantSANs: "refused"},
		{name: "wildcard", sans: []string{"DNS:{device}.example.com"}, device: pki.Device{ID: "*"}, wantSANs: "refused"},
		{name: "second @", sans: []string{"email:{owner}@example.com"}, device: pki.Device{Owner: "a@evil.example"}, wantSANs: "refused"},
		{name: "path", sans: []string{"URI:https://example.com/{device}/x"}, device: pki.Device{ID: "../?"}, wantSANs: "URI:https://example.com/..%2F%3F/x"},
		{name: "no address", sans: []string{"IP:{label:ip}"}, device: pki.Device{Labels: map[string]string{"ip": "none"}}, wantSANs: "refused"},
		{name: "nothing known", subject: "CN={device},OU={group}", device: pki.Device{ID: "a"}, wantSANs: "refused"},
		{name: "no label", sans: []string{"DNS:{label:host}"}, device: pki.Device{ID: "a"}, wantSANs: "refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, err := enrollment.RenderConfig(enrollment.Config{Subject: tt.subject, SANs: tt.sans}, tt.device)
			if tt.wantSANs == "refused" {
				if !fault.Is(err, fault.PolicyRefused) {
					t.Fatalf("got %+v, %v, want a refusal", b, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := profile.FormatSubject(b.Subject); got != tt.wantSubject {
				t.Errorf("subject %q, want %q", got, tt.wantSubject)
			}
			want, err := enrollment.ParseBinding("", "", strings.Fields(tt.wantSANs))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := enrollment.Combine(enrollment.Binding{SANs: b.SANs}, want); err != nil || len(b.SANs) != len(want.SANs) {
				t.Errorf("names %v, want %s", b.SANs, tt.wantSANs)
			}
		})
	}
}

// Every binding holds, and none widens another.
func TestCombine(t *testing.T) {
	t.Parallel()
	bind := func(of, subject string, sans ...string) enrollment.Binding {
		b, err := enrollment.ParseBinding(of, subject, sans)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name    string
		all     []enrollment.Binding
		subject string // of a request
		sans    []string
		want    string // a part of the refusal; empty: admitted
	}{
		{name: "nothing binds", subject: "CN=anything", sans: []string{"DNS:b"}},
		{name: "the same", all: []enrollment.Binding{bind("the point", "CN=a,O=X"), bind("the challenge", "O=x,CN=A")}, subject: "CN=a,O=X"},
		{name: "two subjects", all: []enrollment.Binding{bind("the point", "CN=a"), {}, bind("the challenge", "CN=b")}, subject: "CN=a", want: "the point and the challenge name different subjects: CN=a, and CN=b"},
		{name: "two sets of names", all: []enrollment.Binding{bind("a", "", "DNS:a"), bind("b", "", "DNS:a", "DNS:b")}, subject: "CN=a", want: "different subject alternative names"},
		{name: "another order", all: []enrollment.Binding{bind("a", "", "DNS:b", "DNS:A"), bind("b", "", "DNS:a", "DNS:b")}, subject: "CN=a", sans: []string{"DNS:a"}},
		{name: "one each", all: []enrollment.Binding{bind("a", "CN=a"), bind("b", "", "DNS:a.example.com")}, subject: "CN=a", sans: []string{"DNS:a.example.com"}},
		{name: "a name more", all: []enrollment.Binding{bind("a", "CN=a"), bind("b", "", "DNS:a.example.com")}, subject: "CN=a", sans: []string{"DNS:b.example.com"}, want: "does not allow this subject alternative name"},
		{name: "subject alone leaves no names open", all: []enrollment.Binding{bind("a", "CN=a")}, subject: "CN=a", sans: []string{"IP:10.0.0.1"}, want: "a does not allow this subject alternative name"},
		{name: "names alone leave no subject open", all: []enrollment.Binding{bind("the device's record", "", "DNS:a")}, subject: "CN=b", want: "the device's record does not allow this subject"},
		{name: "an attribute more", all: []enrollment.Binding{bind("a", "CN=a")}, subject: "CN=a,OU=admins", want: "a does not allow this subject"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			request := bind("", tt.subject, tt.sans...)
			b, err := enrollment.Combine(tt.all...)
			if err == nil {
				_, _, err = b.Admit(request.Subject, request.SANs)
			}
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (!fault.Is(err, fault.PolicyRefused) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want a refusal with %q", err, tt.want)
			}
		})
	}
}

// The zero value of each field is its default.
func TestDefaults(t *testing.T) {
	t.Parallel()
	p := enrollment.PointOf(enrollment.Config{Name: "a"})
	if r := p.Renewal(); r != (enrollment.RenewalRules{Percent: 50}) {
		t.Errorf("renewal %+v", r)
	}
	if r := p.Return(); r != (enrollment.ReturnRules{Policy: enrollment.ReturnPending}) {
		t.Errorf("return %+v", r)
	}
	if p.Replacement() != enrollment.ReplaceSupersede || p.Identity() != enrollment.IdentityNone || p.RegisteredOnly() || p.Webhook() != nil {
		t.Error("a default is another")
	}
	if !p.Accepts(enrollment.ChallengeOneTime) || !p.Accepts(enrollment.ChallengeStatic) || p.Accepts(enrollment.ChallengeWebhook) {
		t.Errorf("challenges %v", p.Challenges())
	}
	if l := p.Limits(); l != (enrollment.LimitRules{FailuresPerMinute: 120}) {
		t.Errorf("limits %+v", l)
	}
	p = enrollment.PointOf(enrollment.Config{
		Return: enrollment.ReturnRules{Policy: enrollment.ReturnGrace}, Limits: enrollment.LimitRules{PerMinute: 60}, Webhook: &enrollment.WebhookRules{URL: "https://a.example"},
		Challenges: []enrollment.ChallengeKind{enrollment.ChallengeWebhook},
	})
	if r := p.Return(); r.Grace != 30*document.Day || r.Attempts != 3 || r.Validity != 7*document.Day || r.NewKey {
		t.Errorf("grace %+v", r)
	}
	if l := p.Limits(); l.Burst != 60 {
		t.Errorf("limits %+v", l)
	}
	if w := p.Webhook(); w.When != enrollment.WhenWebhook || w.Timeout.String() != "5s" || *w.Retries != 2 {
		t.Errorf("webhook %+v", w)
	}
	if p.Accepts(enrollment.ChallengeOneTime) || p.Accepts(enrollment.ChallengeStatic) {
		t.Errorf("challenges %v", p.Challenges())
	}
}
