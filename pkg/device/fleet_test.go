package device_test

import (
	"fmt"
	"testing"

	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// TestLargest: however many groups there are, few series come of them, and no device is lost.
func TestLargest(t *testing.T) {
	var fleet store.Fleet
	devices, failing := 0, 0
	for i := range 3 * device.MaxGroups {
		fleet.Groups = append(fleet.Groups, store.GroupFigures{Group: fmt.Sprint("g", i), Status: map[pki.DeviceStatus]int{pki.DeviceEnrolled: i, pki.DeviceBlocked: 1}, Failing: 2, In30: i})
		devices, failing = devices+i+1, failing+2
	}
	largest := device.Largest(fleet)
	if len(largest) != device.MaxGroups || largest[0].Group != fmt.Sprint("g", 3*device.MaxGroups-1) || largest[len(largest)-1].Group != "(others)" {
		t.Errorf("%d groups, from %s to %s", len(largest), largest[0].Group, largest[len(largest)-1].Group)
	}
	in30 := 0
	for _, g := range largest {
		for _, n := range g.Status {
			devices -= n
		}
		failing -= g.Failing
		in30 += g.In30
	}
	if devices != 0 || failing != 0 || in30 == 0 {
		t.Errorf("%d devices and %d failing ones are lost", devices, failing)
	}
	if got := device.Largest(store.Fleet{Groups: fleet.Groups[:3]}); len(got) != 3 || got[0].Group != "g0" {
		t.Errorf("of three groups: %+v", got)
	}
}

// TestFigures: figures are counted once for those who ask at the same time, and seconds later again.
func TestFigures(t *testing.T) {
	r := newRig(t)
	for want := range 2 { // the second device comes too late for the figures
		if _, _, err := r.reg.Create(t.Context(), r.by, []device.Entry{{ID: fmt.Sprint("d", want), Group: "g"}}, false); err != nil {
			t.Fatal(err)
		}
		fleet, at, err := r.reg.Fleet(t.Context())
		if err != nil || at.IsZero() || len(fleet.Groups) != 1 {
			t.Fatalf("Fleet = %+v, %v, %v", fleet, at, err)
		}
	}
	if fleet, _, err := r.registry().Fleet(t.Context()); err != nil || fleet.Groups[0].Status[pki.DeviceExpected] != 2 {
		t.Errorf("Fleet of another replica = %+v, %v", fleet, err)
	}
	if rs, err := r.reg.Refusals(t.Context(), 7); err != nil || len(rs) != 0 {
		t.Errorf("Refusals = %v, %v", rs, err)
	}
}
