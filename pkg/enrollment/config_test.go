package enrollment_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// A document keeps its days as days.
func TestDateInJSON(t *testing.T) {
	t.Parallel()
	const text = `{"legacy":{"des":"2027-03-31"}}`
	var c struct {
		Legacy map[enrollment.Switch]enrollment.Date `json:"legacy"`
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if got, want := c.Legacy[enrollment.LegacyDES].End(), time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("it ends at %s, want %s", got, want)
	}
	if out, err := json.Marshal(c); err != nil || string(out) != text {
		t.Errorf("%s, %v; want %s", out, err, text)
	}
	for _, bad := range []string{`"2027-03-31T00:00:00Z"`, `"2027-02-30"`, `""`, `1`} {
		if err := json.Unmarshal([]byte(bad), new(enrollment.Date)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// What a point's settings may say, and the field that is blamed when they may not.
func TestConfig(t *testing.T) {
	t.Parallel()
	anchor := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("not a certificate")}))
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for text, field := range map[string]string{
		`{"name":"phones"}`: "-",
		`{"name":"phones","subject":"CN={device},OU={group}","sans":["DNS:{device}.example.com","IP:{label:ip}","URI:urn:dev:{owner}"]}`: "-",
		`{"name":"a","subject":"CN=a{{b}}"}`:                                                                "-",
		`{"name":"a","subject":"CN={serial}"}`:                                                              "subject",
		`{"name":"a","subject":"CN={device"}`:                                                               "subject",
		`{"name":"a","subject":"CN=device}"}`:                                                               "subject",
		`{"name":"a","subject":"CN={label:}"}`:                                                              "subject",
		`{"name":"a","subject":"nonsense"}`:                                                                 "subject",
		`{"name":"a","sans":["{device}"]}`:                                                                  "sans[0]",
		`{"name":"a","sans":["DNS:a","IP:10.{device}"]}`:                                                    "sans[1]",
		`{"name":"a","sans":["IP:nonsense"]}`:                                                               "sans[0]",
		`{"name":"a","sans":["DNS:"]}`:                                                                      "sans[0]",
		`{"name":"a","challenges":["one-time"]}`:                                                            "-",
		`{"name":"a","challenges":["two-time"]}`:                                                            "challenges[0]",
		`{"name":"a","challenges":["static","static"]}`:                                                     "challenges[1]",
		`{"name":"a","challenges":["webhook"]}`:                                                             "challenges",
		`{"name":"a","device":{"identity":"dnsName","registered":true}}`:                                    "-",
		`{"name":"a","device":{"identity":"mac"}}`:                                                          "device.identity",
		`{"name":"a","device":{"id":"x"}}`:                                                                  "device.id",
		`{"name":"a","renewal":{"percent":30,"challenge":true,"newKey":true}}`:                              "-",
		`{"name":"a","renewal":{"percent":101}}`:                                                            "renewal.percent",
		`{"name":"a","renewalPercent":30}`:                                                                  "renewalPercent",
		`{"name":"a","return":{"policy":"grace","grace":"90d","attempts":5,"validity":"1d","newKey":true}}`: "-",
		`{"name":"a","return":{"policy":"refuse"}}`:                                                         "-",
		`{"name":"a","return":{"policy":"always"}}`:                                                         "return.policy",
		`{"name":"a","return":{"policy":"grace","grace":"91d"}}`:                                            "return.grace",
		`{"name":"a","return":{"policy":"grace","grace":"soon"}}`:                                           "return.grace",
		`{"name":"a","return":{"grace":"10d"}}`:                                                             "return.policy",
		`{"name":"a","return":{"policy":"grace","attempts":-1}}`:                                            "return.attempts",
		`{"name":"a","return":{"policy":"grace","validity":"1s"}}`:                                          "return.validity",
		`{"name":"a","replacement":"revoke"}`:                                                               "-",
		`{"name":"a","replacement":"delete"}`:                                                               "replacement",
		`{"name":"a","limits":{"perMinute":100,"burst":5,"failuresPerMinute":10}}`:                          "-",
		`{"name":"a","limits":{"burst":5}}`:                                                                 "limits.burst",
		`{"name":"a","limits":{"perMinute":-5}}`:                                                            "limits.perMinute",
		`{"name":"a","challenges":["webhook"],"webhook":{"url":"https://mdm.example.com/scep","timeout":"10s","retries":0,"allow":["10.0.0.0/8","mdm.example.com"],"notify":["success","failure"]}}`: "-",
		`{"name":"a","webhook":{"url":"https://mdm.example.com"}}`:                             "webhook",
		`{"name":"a","webhook":{"url":"https://mdm.example.com","when":"always"}}`:             "-",
		`{"name":"a","webhook":{"url":"https://mdm.example.com","when":"never"}}`:              "webhook.when",
		`{"name":"a","webhook":{"url":"http://mdm.example.com","when":"always"}}`:              "webhook.url",
		`{"name":"a","webhook":{"url":"https://u:p@mdm.example.com","when":"always"}}`:         "webhook.url",
		`{"name":"a","webhook":{"url":"https://m.example.com","timeout":"31s"}}`:               "webhook.timeout",
		`{"name":"a","webhook":{"url":"https://m.example.com","retries":6}}`:                   "webhook.retries",
		`{"name":"a","webhook":{"url":"https://m.example.com","allow":["10.0.0.1/8"]}}`:        "webhook.allow[0]",
		`{"name":"a","webhook":{"url":"https://m.example.com","allow":["m.example.com","*"]}}`: "webhook.allow[1]",
		`{"name":"a","webhook":{"url":"https://m.example.com","notify":["always"]}}`:           "webhook.notify[0]",
		`{"name":"a","webhook":{"url":"https://m.example.com","ca":"nonsense"}}`:               "webhook.ca",
		`{"name":"a","webhook":{"url":"https://m.example.com","ca":` + quoted(anchor) + `}}`:   "webhook.ca",
		`{"name":"a","legacy":{"sharedKeys":"2027-01-01"}}`:                                    "-",
		`{"name":"a","legacy":{"sharedKeys":"tomorrow"}}`:                                      "legacy",
		`{"name":"a","legacy":{"sharedKeys":"2036-01-01"}}`:                                    "legacy.sharedKeys",
		`{"name":"A"}`:            "name",
		`{"name":"a","nam":"b"}`:  "nam",
		`{"name":"a","name":"b"}`: "name",
		`{"name":"a"} {}`:         "",
		`[]`:                      "",
	} {
		c, err := enrollment.ParseConfig([]byte(text))
		if err == nil {
			err = c.Validate(now)
		}
		if field == "-" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.BadRequest || f.Field != field {
			t.Errorf("%s: got %v, want a refusal of the field %q", text, err, field)
		}
	}
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// A document of an older release means what it meant; nobody writes one any more.
func TestReadConfigOfOlderRelease(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		`{"name":"a","renewalPercent":30}`:                          30,
		`{"name":"a","renewalPercent":30,"renewal":{"percent":40}}`: 40,
		`{"name":"a","renewal":{"percent":40}}`:                     40,
		`{"name":"a"}`:                                              0,
	} {
		c, err := enrollment.ReadConfig([]byte(text))
		if err != nil || c.Renewal.Percent != want || c.Name != "a" {
			t.Errorf("%s: %+v, %v; want renewal.percent %d", text, c, err, want)
		}
	}
	if _, err := enrollment.ReadConfig([]byte(`{"name":"a","renewalPercent":"much"}`)); !fault.Is(err, fault.BadRequest) {
		t.Errorf("a percentage that is none: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		`{"name":"a","subject":"CN={device}+OU=\\{,O={label:x y}","sans":["DNS:{device}.a","UPN:{owner}@b"]}`,
		`{"name":"a","renewalPercent":{"percent":1}}`, `{"name":"a","webhook":{"url":"https://[::1]:8/","when":"always","allow":["::/0"]}}`,
		`{"name":"a","legacy":{"des":"2027-03-31"}}`, `{"name":"a","return":{"policy":"grace"}}`,
	} {
		f.Add([]byte(seed), "sensor-17")
	}
	f.Fuzz(func(t *testing.T, text []byte, device string) {
		c, err := enrollment.ReadConfig(text)
		if err == nil {
			err = c.Validate(time.Time{})
		}
		if err != nil {
			if !fault.Is(err, fault.BadRequest) {
				t.Errorf("%q: %v is no BadRequest", text, err)
			}
			return
		}
		b, err := enrollment.RenderConfig(c, pki.Device{ID: device, Group: device, Owner: device})
		if err != nil && !fault.Is(err, fault.PolicyRefused) {
			t.Errorf("%q, device %q: %v is no PolicyRefused", text, device, err)
		}
		if again, err := enrollment.Combine(b, b); err != nil || len(again.SANs) != len(b.SANs) {
			t.Errorf("%q, device %q: a binding contradicts itself: %v", text, device, err)
		}
		written, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := enrollment.ParseConfig(written); err != nil && len(written) <= 64<<10 {
			t.Errorf("%s, as it is kept, is not read: %v", written, err)
		}
	})
}

func TestWarnings(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		config string
		static bool
		want   []string // a part of each
	}{
		{`{"name":"p"}`, false, nil},
		{`{"name":"p"}`, true, []string{"every name that the profile allows"}},
		{`{"name":"p","approval":true}`, true, nil},
		{`{"name":"p","challenges":["one-time"]}`, true, nil},
		{`{"name":"p","legacy":{"md5":"2026-11-23","des":"2026-12-01"}}`, false, []string{"(des, md5) are holes"}},
		{`{"name":"p","legacy":{"md5":"2026-11-22","des":"2026-12-01"}}`, false, []string{"(des) are holes", "day is over (md5)"}},
		{`{"name":"p","subject":"CN={device}","device":{"registered":true}}`, true, []string{"set device.identity"}},
		{`{"name":"p","subject":"CN={device}","device":{"registered":true}}`, false, nil},
		{`{"name":"p","subject":"CN={device}","device":{"registered":true,"identity":"commonName"}}`, true, nil},
	} {
		c, err := enrollment.ParseConfig([]byte(test.config))
		if err != nil {
			t.Fatal(err)
		}
		got := c.Warnings(test.static, now)
		if len(got) != len(test.want) {
			t.Errorf("%s: %q, want %q", test.config, got, test.want)
			continue
		}
		for i, part := range test.want {
			if !strings.Contains(got[i], part) {
				t.Errorf("%s: %q, want %q", test.config, got, test.want)
			}
		}
	}
}
