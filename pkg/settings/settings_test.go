package settings_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/settings"
)

func TestZeroValueIsTheProcess(t *testing.T) {
	process := settings.Default()
	process.CRL.Interval, process.OCSP.NextUpdate = 2*time.Hour, 3*time.Hour
	var c settings.Config
	if err := c.Check(process); err != nil {
		t.Error(err)
	}
	if got := c.Over(process); got != process || got.CRL.Set() != pki.ScopeFull {
		t.Errorf("nothing settled gives %+v, want what the process has, %+v", got, process)
	}
	text, err := json.Marshal(c)
	if err != nil || string(text) != "{}" {
		t.Errorf("nothing settled is written as %s, %v", text, err)
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct{ text, field string }{
		{`{}`, ""},
		{`{"crl":{"form":"full"}}`, ""},
		{`{"crl":{"form":"sharded"}}`, ""},
		{`{"crl":{"form":"sharded","shards":1024,"delta":{}}}`, ""},
		{`{"crl":{"delta":{"baseInterval":"1h","nextUpdate":"7d"}}}`, ""},
		{`{"crl":{"interval":"6d23h"}}`, ""},
		{`{"crl":{"interval":"10m","nextUpdate":"30m","coalesce":"500ms","maxAge":"30s"},"ocsp":{"nextUpdate":"1d","maxAge":"1h"}}`, ""},
		{`{"crl":{"form":"split"}}`, "crl.form"},
		{`{"crl":{"shards":8}}`, "crl.shards"},
		{`{"crl":{"form":"full","shards":8}}`, "crl.shards"},
		{`{"crl":{"form":"sharded","shards":1}}`, "crl.shards"},
		{`{"crl":{"form":"sharded","shards":-2}}`, "crl.shards"},
		{`{"crl":{"form":"sharded","shards":1025}}`, "crl.shards"},
		{`{"crl":{"interval":"59s"}}`, "crl.interval"},
		{`{"crl":{"interval":"-1h"}}`, "crl.interval"},
		{`{"crl":{"interval":"7d"}}`, "crl.interval"},
		{`{"crl":{"nextUpdate":"1h"}}`, "crl.nextUpdate"},
		{`{"crl":{"nextUpdate":"2y"}}`, "crl.nextUpdate"},
		{`{"crl":{"coalesce":"1ms"}}`, "crl.coalesce"},
		{`{"crl":{"coalesce":"2m"}}`, "crl.coalesce"},
		{`{"crl":{"maxAge":"2d"}}`, "crl.maxAge"},
		{`{"crl":{"delta":{"baseInterval":"30m"}}}`, "crl.delta.baseInterval"},
		{`{"crl":{"delta":{"baseInterval":"8d"}}}`, "crl.delta.baseInterval"},
		{`{"crl":{"delta":{"nextUpdate":"1h"}}}`, "crl.delta.nextUpdate"},
		{`{"crl":{"delta":{"nextUpdate":"8d"}}}`, "crl.delta.nextUpdate"},
		{`{"ocsp":{"nextUpdate":"5s"}}`, "ocsp.nextUpdate"},
		{`{"ocsp":{"maxAge":"11m"}}`, "ocsp.maxAge"},
		{`{"ocsp":{"nextUpdate":"1h","maxAge":"2h"}}`, "ocsp.maxAge"},
	} {
		c, err := settings.Parse([]byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		err = c.Check(settings.Default())
		if tt.field == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.text, err)
			}
			continue
		}
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.PolicyRefused || f.Field != tt.field {
			t.Errorf("%s: got %v, want a refusal of %s", tt.text, err, tt.field)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ text, field string }{
		{`{"crl":{"forms":"full"}}`, "crl.forms"},
		{`{"crl":{"form":"full","Form":"full"}}`, "crl.Form"},
		{`{"crl":{"interval":"soon"}}`, "crl.interval"},
		{`{"crl":{"delta":{"nextUpdate":5}}}`, "crl.delta.nextUpdate"},
		{`{"crl":{"shards":"8"}}`, "crl.shards"},
		{`{} {}`, ""},
		{`[]`, ""},
		{``, ""},
	} {
		_, err := settings.Parse([]byte(tt.text))
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.BadRequest || f.Field != tt.field {
			t.Errorf("%s: got %v, want a refusal of %q", tt.text, err, tt.field)
		}
	}
}

// Whatever two replicas are told apart from each other, their lists never end before the next ones.
func TestOver(t *testing.T) {
	hour := settings.Duration(time.Hour)
	for name, tt := range map[string]struct {
		rules settings.CRLRules
		want  settings.CRL
	}{
		"sharded": {
			settings.CRLRules{Form: settings.Sharded},
			settings.CRL{Shards: 64, Interval: time.Hour, NextUpdate: 168 * time.Hour, Coalesce: 500 * time.Millisecond, MaxAge: time.Minute},
		},
		"an interval that does not fit the process": {
			settings.CRLRules{Interval: 200 * hour},
			settings.CRL{Interval: 200 * time.Hour, NextUpdate: 400 * time.Hour, Coalesce: 500 * time.Millisecond, MaxAge: time.Minute},
		},
		"delta": {
			settings.CRLRules{Delta: &settings.DeltaRules{}},
			settings.CRL{
				Interval: time.Hour, NextUpdate: 168 * time.Hour, Coalesce: 500 * time.Millisecond, MaxAge: time.Minute,
				Delta: true, BaseInterval: 24 * time.Hour, DeltaNextUpdate: 24 * time.Hour,
			},
		},
		"delta of short lists": {
			settings.CRLRules{NextUpdate: 3 * hour, Delta: &settings.DeltaRules{}},
			settings.CRL{
				Interval: time.Hour, NextUpdate: 3 * time.Hour, Coalesce: 500 * time.Millisecond, MaxAge: time.Minute,
				Delta: true, BaseInterval: 3 * time.Hour, DeltaNextUpdate: 2 * time.Hour,
			},
		},
	} {
		if got := (settings.Config{CRL: tt.rules}).Over(settings.Default()).CRL; got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}
