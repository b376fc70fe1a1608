package store_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// TestSelectionKeepsEveryCondition fails when the filter gets a field that campaigns would forget: they would then revoke
// more than was asked for.
func TestSelectionKeepsEveryCondition(t *testing.T) {
	var f store.CertificateFilter
	v := reflect.ValueOf(&f).Elem()
	for i := range v.NumField() {
		switch field := v.Field(i); p := field.Addr().Interface().(type) {
		case *[]int64:
			*p = []int64{3}
		case *[]string:
			*p = []string{"x"}
		case *[]pki.Status:
			*p = []pki.Status{pki.OnHold}
		case *pki.SerialNumber:
			*p = pki.SerialNumber([]byte{0xff, 0x00})
		case **pki.Fingerprint:
			*p = &pki.Fingerprint{8}
		case **[32]byte:
			*p = &[32]byte{7}
		case *string:
			*p = "text"
		case *time.Time:
			*p = time.Date(2026, 11, 3, 1, 2, 3, 4, time.UTC)
		case *bool:
			*p = true
		default:
			t.Fatalf("the test does not know %s", field.Type())
		}
	}
	b, err := store.EncodeSelection(f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := store.DecodeSelection(b)
	if err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("%s came back as %+v, %v; want %+v", b, got, err, f)
	}
	if _, err := store.DecodeSelection([]byte(strings.Replace(string(b), `"device"`, `"planet"`, 1))); err == nil {
		t.Error("a condition that is not known was left out")
	}
	for _, bad := range []string{``, `{"serial":"x"}`, `{"spki_hash":"00"}`, `{"spki_hash":"` + strings.Repeat("0", 66) + `"}`} {
		if _, err := store.DecodeSelection([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if f, some := (store.CertificateFilter{Status: []pki.Status{pki.Revoked}}).NotRevoked(); some {
		t.Errorf("NotRevoked of the revoked = %+v", f)
	}
}
