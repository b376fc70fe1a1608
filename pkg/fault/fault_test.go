package fault_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/fault"
)

func TestKindOf(t *testing.T) {
	cause := errors.New("dial tcp: secret host")
	tests := []struct {
		name string
		err  error
		want fault.Kind
	}{
		{"untyped is internal", cause, fault.Internal},
		{"wrapped fault", fmt.Errorf("issuing: %w", fault.New(fault.BadCSR, "no")), fault.BadCSR},
		{"outermost wins", fault.Wrap(fault.Unavailable, fault.New(fault.NotFound, "x"), "store away"), fault.Unavailable},
	}
	for _, tt := range tests {
		if got := fault.KindOf(tt.err); got != tt.want {
			t.Errorf("%s: KindOf = %v, want %v", tt.name, got, tt.want)
		}
	}
	if fault.Is(nil, fault.Internal) {
		t.Error("Is(nil, Internal) = true, want false")
	}
}

func TestPublicHidesCauses(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.7: password wrong")
	for _, err := range []error{cause, fault.Wrap(fault.Internal, cause, "loading 10.0.0.7"), fault.Wrap(fault.Unavailable, cause, "the store is away")} {
		if got := fault.Public(fmt.Errorf("outer: %w", err)).Error(); strings.Contains(got, "10.0.0.7") {
			t.Errorf("Public(%v) = %q, shows the cause", err, got)
		}
	}
	if fault.Public(nil) != nil {
		t.Error("Public(nil) is not nil")
	}
}

func TestKindNamesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range fault.Kinds() {
		if s := k.String(); s == "" || seen[s] {
			t.Errorf("kind %d has the name %q, empty or used twice", k, s)
		} else {
			seen[s] = true
		}
	}
}
