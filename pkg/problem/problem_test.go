package problem_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/problem"
)

func TestEveryKindHasItsDocument(t *testing.T) {
	for _, k := range fault.Kinds() {
		d := problem.Of(fault.New(k, "detail"))
		if d.Status < 400 || d.Title == "" || !strings.HasSuffix(d.Type, k.String()) {
			t.Errorf("kind %v: %+v", k, d)
		}
		if clientFault := d.Status < 500; !clientFault && k != fault.Internal && k != fault.Unavailable {
			t.Errorf("kind %v answers %d: only our own faults are 5xx", k, d.Status)
		}
	}
}

func TestWrite(t *testing.T) {
	w := httptest.NewRecorder()
	problem.Of(fault.Wrap(fault.Unavailable, errors.New("dial secret-host"), "the store is away").WithRetryAfter(1500 * time.Millisecond)).Write(w)
	if w.Code != 503 || w.Header().Get("Retry-After") != "2" || w.Header().Get("Content-Type") != problem.ContentType {
		t.Errorf("status %d, headers %v", w.Code, w.Header())
	}
	if strings.Contains(w.Body.String(), "secret-host") {
		t.Errorf("the body shows the cause: %s", w.Body)
	}
}
