package pki_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/pki"
	"pgregory.net/rapid"
)

// contentOctets draws the content of a serial number's INTEGER: positive, minimal, 1 to 20 octets.
func contentOctets(t *rapid.T) []byte {
	b := rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "octets")
	b[0] &= 0x7f
	if len(b) > 1 && b[0] == 0 {
		b[1] |= 0x80
	}
	return b
}

func TestSerialNumberRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		octets := contentOctets(t)
		serial, err := pki.SerialNumberFromBytes(octets)
		if err != nil {
			t.Fatalf("SerialNumberFromBytes(%x): %v", octets, err)
		}
		if !bytes.Equal(serial.Bytes(), octets) {
			t.Fatalf("Bytes() = %x, want %x", serial.Bytes(), octets)
		}
		text := serial.String()
		colons := strings.Join(pairs(text), ":")
		for _, form := range []string{text, strings.ToUpper(text), "0x" + text, "0X" + text, "00" + text, colons, " " + strings.Join(pairs(text), " ") + "\n"} {
			got, err := pki.ParseSerialNumber(form)
			if err != nil || got != serial {
				t.Fatalf("ParseSerialNumber(%q) = %x, %v; want %x", form, got.Bytes(), err, octets)
			}
		}
	})
}

func pairs(text string) []string {
	var out []string
	for ; len(text) > 0; text = text[2:] {
		out = append(out, text[:2])
	}
	return out
}

func TestBucketIsAPureFunction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(rapid.Int64Range(1577836800, 4102444800).Draw(t, "now"), 0)
		notAfter := time.Unix(rapid.Int64Range(0, 253402300800).Draw(t, "notAfter"), 0)
		serial, err := pki.NewSerialNumber(rand.Reader, notAfter, now)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := serial.Bucket(), pki.BucketOf(notAfter); got != want {
			t.Fatalf("Bucket() = %d, BucketOf(%v) = %d", got, notAfter, want)
		}
		parsed, err := pki.ParseSerialNumber(serial.String())
		if err != nil || parsed.Bucket() != serial.Bucket() {
			t.Fatalf("the bucket of %v changed to %d after a round trip (%v)", serial, parsed.Bucket(), err)
		}
		if len(serial) != 16 || serial[0] != 0x41 {
			t.Fatalf("NewSerialNumber = %v, want 16 octets that begin with 41", serial)
		}
	})
	// Whatever its octets are, a serial has exactly one bucket, and only our form has one of its own.
	rapid.Check(t, func(t *rapid.T) {
		serial := pki.SerialNumber(contentOctets(t))
		own := len(serial) == 16 && serial[0] == 0x41
		if got := serial.Bucket(); got != serial.Bucket() || got < 0 || got > pki.BucketNever || !own && got != pki.BucketImported {
			t.Fatalf("Bucket of %v = %d", serial, got)
		}
	})
}

func TestBucketOf(t *testing.T) {
	tests := []struct {
		name     string
		notAfter time.Time
		want     int
	}{
		{"January 2000 is the imported bucket's neighbour", time.Date(2000, 1, 31, 0, 0, 0, 0, time.UTC), 1},
		{"before the epoch", time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), 1},
		{"November 2026", time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), 322},
		{"last second of a month", time.Date(2026, 11, 30, 23, 59, 59, 0, time.UTC), 322},
		{"the month is UTC's", time.Date(2026, 12, 1, 0, 30, 0, 0, time.FixedZone("", 3600)), 322},
		{"next month", time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), 323},
		{"beyond what two octets count", time.Date(9999, 12, 31, 23, 59, 58, 0, time.UTC), pki.BucketNever - 1},
		{"no end", pki.NoExpiry, pki.BucketNever},
	}
	for _, tt := range tests {
		if got := pki.BucketOf(tt.notAfter); got != tt.want {
			t.Errorf("%s: BucketOf(%v) = %d, want %d", tt.name, tt.notAfter, got, tt.want)
		}
	}
}

func TestParseSerialNumber(t *testing.T) {
	tests := []struct {
		name, text, want string // want is String(); empty when refused
	}{
		{"one digit", "7", "07"},
		{"colons", "41:01:ff", "4101ff"},
		{"0x and upper case", "0x4A0B", "4a0b"},
		{"leading zeros", "0000004101", "4101"},
		{"high bit gets its sign octet", "ff", "00ff"},
		{"sign octet given", "00:FF", "00ff"},
		{"zero", "0", "00"},
		{"20 octets", "7f" + strings.Repeat("ab", 19), "7f" + strings.Repeat("ab", 19)},
		{"20 octets and a high bit", strings.Repeat("ff", 20), ""},
		{"21 octets", strings.Repeat("12", 21), ""},
		{"empty", "", ""},
		{"negative", "-1", ""},
		{"negative hexadecimal", "-0x41", ""},
		{"no digits", "zz", ""},
		{"decimal point", "12.5", ""},
	}
	for _, tt := range tests {
		got, err := pki.ParseSerialNumber(tt.text)
		if tt.want == "" {
			if !errors.Is(err, pki.ErrSerialNumber) {
				t.Errorf("%s: ParseSerialNumber(%q) = %v, %v; want ErrSerialNumber", tt.name, tt.text, got, err)
			}
			continue
		}
		if err != nil || got.String() != tt.want {
			t.Errorf("%s: ParseSerialNumber(%q) = %v, %v; want %s", tt.name, tt.text, got, err, tt.want)
		}
	}
}

func TestSerialNumberFromBytesRefuses(t *testing.T) {
	tests := []struct {
		name string
		b    []byte
	}{
		{"nothing", nil},
		{"negative", []byte{0x80}},
		{"negative, long", append([]byte{0xff}, make([]byte, 15)...)},
		{"needless zero", []byte{0, 0x7f}},
		{"21 octets", make([]byte, 21)},
	}
	for _, tt := range tests {
		if got, err := pki.SerialNumberFromBytes(tt.b); !errors.Is(err, pki.ErrSerialNumber) {
			t.Errorf("%s: SerialNumberFromBytes(%x) = %v, %v; want ErrSerialNumber", tt.name, tt.b, got, err)
		}
	}
}

func TestNewSerialNumberPassesOnTheErrorOfItsRandomSource(t *testing.T) {
	if got, err := pki.NewSerialNumber(bytes.NewReader(make([]byte, 8)), pki.NoExpiry, time.Now()); err == nil {
		t.Errorf("NewSerialNumber from 8 octets of randomness = %v, want an error", got)
	}
}

func FuzzParseSerialNumber(f *testing.F) {
	for _, s := range []string{"4101", "0xff", "00:ab", "-1", "", " 7 ", "0x0x1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		serial, err := pki.ParseSerialNumber(text)
		if err != nil {
			return
		}
		if again, err := pki.SerialNumberFromBytes(serial.Bytes()); err != nil || again != serial {
			t.Errorf("ParseSerialNumber(%q) = %v, which is no serial number: %v", text, serial, err)
		}
	})
}
