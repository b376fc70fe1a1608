package webhook_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/webhook"
)

func TestParseAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, field string }{ // field: at fault; "-": none is
		{` {"decision":"pending","reason":"x","validity":"1y"} `, "-"},
		{`{"decision":"allow"}`, "-"},
		{`{"decision":"deny","sans":[]}`, "-"},
		{`{"decision":"Allow"}`, "decision"},
		{`{"decision":"allow ","reason":"x"}`, "decision"},
		{`{"decision":true}`, "decision"},
		{`{"reason":"x"}`, "decision"},
		{`{"decision":"allow","validity":"1s"}`, "validity"},
		{`{"decision":"allow","validity":"-1h"}`, "validity"},
		{`{"decision":"allow","validity":30}`, "validity"},
		{`{"decision":"allow","device":" d"}`, "device"},
		{`{"decision":"allow","device":"d\u0000"}`, "device"},
		{`{"decision":"allow","group":"g\n"}`, "group"},
		{`{"decision":"allow","subject":"CN=\u0007"}`, "subject"},
		{`{"decision":"allow","sans":["DNS:a","DNS:b "]}`, "sans[1]"},
		{`{"decision":"allow","sans":"DNS:a"}`, "sans"},
		{`{"decision":"allow","override":{"subject":"CN=x"}}`, "override"},
		{`{"decision":"deny","decision":"allow"}`, "decision"},
		{`[{"decision":"allow"}]`, ""},
		{`{"decision":"allow"} {}`, ""},
		{`allow`, ""},
		{"{\"decision\":\"allow\",\"reason\":\"\xff\"}", ""},
		{`{"decision":"allow","reason":"` + long(501) + `"}`, "reason"},
		{`{"decision":"allow","device":"` + long(201) + `"}`, "device"},
		{`{"decision":"allow","group":"` + long(100) + `"}`, "-"},
		{`{"decision":"allow","group":"` + long(101) + `"}`, "group"},
		{`{"decision":"allow","subject":"CN=` + long(2000) + `"}`, "subject"},
		{`{"decision":"allow","sans":["` + long(2001) + `"]}`, "sans[0]"},
		{`{"decision":"allow","sans":["x"` + strings.Repeat(`,"x"`, 100) + `]}`, "sans"},
	} {
		a, err := webhook.ParseAnswer([]byte(tt.text))
		if tt.field == "-" {
			if err != nil {
				t.Errorf("%s: %v", tt.text, err)
			}
			continue
		}
		f := fault.Public(err)
		if err == nil || f.Kind != fault.BadRequest || f.Field != tt.field || a.Decision != "" {
			t.Errorf("%.80s: got %+v, %v; want a refusal of %q", tt.text, a, err, tt.field)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

// Whatever comes, an answer is refused or is within its bounds, and says the same when it is read again.
func FuzzParseAnswer(f *testing.F) {
	for _, seed := range []string{
		allow, `{"decision":"deny","reason":"no\u202e"}`, `{"decision":"pending","device":"d","group":"g","subject":"CN=d","sans":["DNS:d"],"validity":"1y30d"}`,
		`{"decision":"allow","validity":"9223372036854775807ns"}`, `{}`, `[`, "\x00", `{"decision":"allow","DECISION":"deny"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := webhook.ParseAnswer(b)
		if err != nil {
			if !fault.Is(err, fault.BadRequest) || a.Decision != "" {
				t.Fatalf("%+v, %v", a, err)
			}
			return
		}
		if len(a.Reason) > 1500 || len(a.SANs) > 100 || len(a.Device) > 200 || strings.ContainsFunc(a.Reason+a.Device+a.Group+a.Subject+strings.Join(a.SANs, ""), unicode.IsControl) {
			t.Fatalf("%+v is out of bounds", a)
		}
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := webhook.ParseAnswer(text); err != nil || again.Decision != a.Decision || again.Validity != a.Validity || again.Device != a.Device {
			t.Fatalf("%s is read as %+v, %v", text, again, err)
		}
	})
}
