package storetest

import (
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// Before is what a database of schema version 9 holds of devices, before migration 10 registers those that had certificates
// or challenges. A store's own test writes it with the SQL of that version, migrates, and has WantRegistered look.
type Before struct {
	Certificates []pki.Certificate // without DER
	Challenges   []pki.Challenge
	Devices      []pki.Device // that were registered already
	after        []pki.Device
}

// Version9 returns rows in which every case is there: several certificates, of one instant too, certificates and
// challenges, challenges alone, and devices that are in the registry; and rows that speak of no device.
func Version9() Before {
	var b Before
	at := func(minutes int) time.Time { return base.Add(time.Duration(minutes) * time.Minute) }
	cert := func(device string, minutes int, serial byte, requester, source string) pki.Certificate {
		c := certificate(signer{1, 1}, func(c *pki.Certificate) {
			c.Device, c.IssuedAt, c.Requester, c.Source, c.DER = device, at(minutes), requester, source, nil
			s, err := pki.NewSerialNumber(zeros{serial}, c.NotAfter, base)
			if err != nil {
				panic(err)
			}
			c.Serial = s
		})
		b.Certificates = append(b.Certificates, c)
		return c
	}
	challenge := func(device string, minutes int, by string) {
		n := len(b.Challenges)
		b.Challenges = append(b.Challenges, pki.Challenge{
			ID: string(rune('z' - n)), Hash: [32]byte{byte(n)}, Point: "default", Device: device, CreatedAt: at(minutes), CreatedBy: by, ExpiresAt: at(minutes + 1440),
		})
	}
	enrolled := func(c pki.Certificate, first time.Time) pki.Device {
		return pki.Device{
			ID: c.Device, Version: 1, Status: pki.DeviceEnrolled, CreatedAt: c.IssuedAt, CreatedBy: c.Requester, ChangedAt: c.IssuedAt, ChangedBy: c.Requester,
			FirstSeenAt: first, LastSeenAt: c.IssuedAt, LastSource: c.Source, Certificate: c.Fingerprint, IssuerKeyID: c.IssuerKeyID, Serial: c.Serial, NotAfter: c.NotAfter,
		}
	}
	expected := func(id string, minutes int, by string) pki.Device {
		return pki.Device{ID: id, Version: 1, Status: pki.DeviceExpected, CreatedAt: at(minutes), CreatedBy: by, ChangedAt: at(minutes), ChangedBy: by}
	}

	cert("Sensor-1", 1, 1, "token:old", "192.0.2.1")
	newest := cert("Sensor-1", 9, 2, "token:new", "2001:db8::1")
	cert("Sensor-1", 5, 3, "token:mid", "192.0.2.3")
	cert("twins", 7, 4, "token:a", "")
	twin := cert("twins", 7, 5, "token:b", "")
	both := cert("both", 3, 6, "token:c", "192.0.2.9")
	cert("", 4, 7, "token:none", "")
	cert("known", 8, 8, "token:late", "192.0.2.8")
	quoted := cert(`o'clock "ü" {,}\`, 2, 9, "certificate:ab", "")
	challenge("both", 0, "token:x")
	challenge("waits", 6, "token:second")
	challenge("waits", 5, "token:first")
	challenge("", 5, "token:nobody")
	challenge("retired", 5, "token:nobody")
	challenge("Übrig", 4, "token:y")
	known := pki.Device{
		ID: "known", Version: 4, Status: pki.DeviceBlocked, Group: "hall 3", Owner: "o", Labels: map[string]string{"a": "b"}, Subject: "CN=known", SANs: []string{"DNS:known"},
		Note: "n", Reason: "stolen", CreatedAt: at(-9), CreatedBy: "x", ChangedAt: at(-8), ChangedBy: "y", FirstSeenAt: at(-7), LastSeenAt: at(-6), LastSource: "::1", LastPoint: "p",
		Protocol: pki.DeviceProtocol{Message: "PKCSReq"}, Failures: 3, RenewalFailures: 2, FailedAt: at(-5), Failure: "names", Returns: 1,
		RevokeReason: pki.KeyCompromise, RevokeUntil: at(-4),
	}
	retired := pki.Device{ID: "retired", Version: 2, Status: pki.DeviceRetired, CreatedAt: at(-9), CreatedBy: "x", ChangedAt: at(-8), ChangedBy: "y"}
	b.Devices = []pki.Device{known, retired}

	b.after = []pki.Device{ // in the order of octets
		enrolled(newest, at(1)), enrolled(both, at(3)), known, enrolled(quoted, at(2)), retired, enrolled(twin, at(7)),
		expected("waits", 5, "token:first"), expected("Übrig", 4, "token:y"),
	}
	return b
}

// zeros is a source of octets that are all the same.
type zeros struct{ octet byte }

// Read fills b.
func (z zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = z.octet
	}
	return len(b), nil
}

// WantRegistered fails t unless the store, migrated, has the devices that it must have.
func (b Before) WantRegistered(t *testing.T, s store.Store) {
	t.Helper()
	ctx := t.Context()
	var got []pki.Device
	for p := (store.Page{Limit: 3}); ; { // pages, since the order is the migration's
		page, next, err := s.ListDevices(ctx, store.DeviceFilter{}, p)
		if err != nil {
			t.Fatalf("ListDevices: %v", err)
		}
		got = append(got, page...)
		if p.Cursor = next; next == "" {
			break
		}
	}
	equal(t, "the devices", got, b.after)
	for _, search := range []struct {
		text string
		want []string
	}{{"sensor-1", []string{"Sensor-1"}}, {"SENSOR", []string{"Sensor-1"}}, {"hall 3", []string{"known"}}, {`"ü" {,}\`, []string{`o'clock "ü" {,}\`}}} {
		page, _, err := s.ListDevices(ctx, store.DeviceFilter{Text: search.text}, store.Page{})
		if err != nil {
			t.Fatalf("ListDevices: %v", err)
		}
		var ids []string
		for _, d := range page {
			ids = append(ids, d.ID)
		}
		equal(t, "who is found by "+search.text, ids, search.want)
	}
	// What the migration registered goes on like every other device.
	for _, d := range b.after {
		d.Version++
		d.Status, d.Note, d.ChangedAt, d.ChangedBy = pki.DeviceBlocked, "changed", base.Add(time.Hour), "token:z"
		if err := s.ChangeDevice(ctx, store.DeviceChange{Device: d, EndChallenges: true, Record: record("device.block", base.Add(time.Hour))}); err != nil {
			t.Errorf("ChangeDevice of %s: %v", d.ID, err)
		}
		if after, err := s.Device(ctx, d.ID); err != nil {
			t.Errorf("Device %s: %v", d.ID, err)
		} else {
			equal(t, "changed", after, d)
		}
	}
	if _, err := s.CountDevices(ctx, store.DeviceFilter{Status: []pki.DeviceStatus{pki.DeviceBlocked}}, 100); err != nil {
		t.Errorf("CountDevices: %v", err)
	}
}
