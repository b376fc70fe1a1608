package enrollment_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/enrollment"
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
