package cms_test

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/cms"
	raw "github.com/certwright/certwright/pkg/internal/scepraw"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNormalise(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, ber, der string }{ // der "": refused
		{"DER stays", "30 03 02 01 05", "30 03 02 01 05"},
		{"long form of a short length", "30 81 03 02 01 05", "30 03 02 01 05"},
		{"length with leading zeros", "30 84 00 00 00 03 02 01 05", "30 03 02 01 05"},
		{"length of eight octets", "30 88 00 00 00 00 00 00 00 03 02 01 05", "30 03 02 01 05"},
		{"indefinite", "30 80 02 01 05 00 00", "30 03 02 01 05"},
		{"indefinite and empty", "30 80 00 00", "30 00"},
		{"indefinite in indefinite", "30 80 31 80 00 00 05 00 00 00", "30 04 31 00 05 00"},
		{"indefinite in definite", "30 06 31 80 05 00 00 00", "30 04 31 02 05 00"},
		{"definite in indefinite", "30 80 31 02 05 00 00 00", "30 04 31 02 05 00"},
		{"OCTET STRING in pieces", "24 80 04 02 61 62 04 00 04 01 63 00 00", "04 03 61 62 63"},
		{"OCTET STRING in definite pieces", "24 06 04 01 61 04 01 62", "04 02 61 62"},
		{"OCTET STRING in pieces in pieces", "24 80 24 80 04 01 61 00 00 24 03 04 01 62 00 00", "04 02 61 62"},
		{"OCTET STRING without pieces", "24 80 00 00", "04 00"},
		{"pieces inside of something", "30 80 24 80 04 01 61 00 00 02 01 01 00 00", "30 06 04 01 61 02 01 01"},
		{"high tag number", "bf 81 00 80 05 00 00 00", "bf 81 00 02 05 00"},
		{"content of a primitive is left alone", "30 81 06 04 04 30 80 00 00", "30 06 04 04 30 80 00 00"},

		{"nothing", "", ""},
		{"one octet", "30", ""},
		{"cut off", "30 03 02 01", ""},
		{"two elements", "05 00 05 00", ""},
		{"child beyond its parent", "30 03 02 02 05 00 00", ""},
		{"indefinite child beyond its definite parent", "30 04 31 80 05 00 00 00", ""},
		{"end-of-contents of a definite parent", "30 02 00 00", ""},
		{"end-of-contents of length 1", "30 80 00 01 00 00 00", ""},
		{"end-of-contents alone", "00 00", ""},
		{"no end-of-contents", "30 80 05 00", ""},
		{"half an end-of-contents", "30 80 05 00 00", ""},
		{"no end-of-contents before the parent's end", "30 80 30 80 05 00 00 00", ""},
		{"primitive of indefinite length", "04 80 61 00 00", ""},
		{"piece that is no OCTET STRING", "24 80 02 01 61 00 00", ""},
		{"constructed BIT STRING", "23 80 03 02 00 61 00 00", ""},
		{"constructed UTF8String", "2c 80 0c 01 61 00 00", ""},
		{"constructed INTEGER", "22 03 02 01 05", ""},
		{"length 0xff", "30 ff 01", ""},
		{"length of nine octets", "30 89 00 00 00 00 00 00 00 00 02 05 00", ""},
		{"length that overflows", "30 88 ff ff ff ff ff ff ff ff 05 00", ""},
		{"length of 2^63", "30 88 80 00 00 00 00 00 00 00 05 00", ""},
		{"length of 4 GiB", "30 85 01 00 00 00 02 05 00", ""},
		{"padded high tag number", "bf 80 01 02 05 00", ""},
		{"tag number of 35 bits", "bf 81 81 81 81 01 02 05 00", ""},
		{"tag number without end", "bf 81 81", ""},
	}
	for _, tt := range tests {
		in := unhex(t, tt.ber)
		got, err := cms.Normalise(in, cms.Limits{})
		if tt.der == "" {
			if err == nil {
				t.Errorf("%s: got %x, want it refused", tt.name, got)
				continue
			}
			isBad(t, err, cms.ErrMalformed)
			continue
		}
		if err != nil || !bytes.Equal(got, unhex(t, tt.der)) {
			t.Errorf("%s: got %x, %v, want %s", tt.name, got, err, tt.der)
		}
	}
}

func TestNormaliseLimits(t *testing.T) {
	t.Parallel()
	nest := func(open string, n int, end string) []byte {
		return append(bytes.Repeat([]byte(open), n), bytes.Repeat([]byte(end), n)...)
	}
	deep := func(n int) []byte {
		b := []byte{5, 0}
		for range n {
			b = raw.Sequence(b)
		}
		return b
	}
	tests := []struct {
		name   string
		in     []byte
		limits cms.Limits
		ok     bool
	}{
		{"32 deep", deep(32), cms.Limits{}, true},
		{"33 deep", deep(33), cms.Limits{}, false},
		{"33 deep, allowed", deep(33), cms.Limits{MaxDepth: 33}, true},
		{"16,384 deep, indefinite", nest("\x30\x80", 16384, "\x00\x00"), cms.Limits{}, false},
		{"32,768 deep, without end", nest("\x30\x80", 32768, ""), cms.Limits{}, false},
		{"8191 elements in one", raw.Sequence(bytes.Repeat([]byte{5, 0}, 8191)), cms.Limits{}, true},
		{"8192 elements in one", raw.Sequence(bytes.Repeat([]byte{5, 0}, 8192)), cms.Limits{}, false},
		{"32,000 empty pieces", raw.Indefinite(0x24, bytes.Repeat([]byte{4, 0}, 32000)), cms.Limits{}, false},
		{"64 KiB", raw.Octets(make([]byte, 65532)), cms.Limits{}, true},
		{"64 KiB and one", raw.Octets(make([]byte, 65533)), cms.Limits{}, false},
	}
	for _, tt := range tests {
		_, err := cms.Normalise(tt.in, tt.limits)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil {
			isBad(t, err, cms.ErrMalformed)
		}
	}
}

// berise writes an element in a random form of BER that means the same.
func berise(rng *rand.Rand, e raw.Element) []byte {
	body := e.Body
	if e.Tag&0x20 != 0 {
		children, err := raw.All(e.Body)
		if err != nil {
			panic(err)
		}
		body = nil
		for _, c := range children {
			body = append(body, berise(rng, c)...)
		}
	}
	isString := e.Tag == 4
	switch n := rng.IntN(4); {
	case n == 0 && e.Tag&0x20 != 0:
		return raw.Indefinite(e.Tag, body)
	case n == 1:
		return raw.Padded(e.Tag, body)
	case n == 2 && isString && len(body) > 0:
		var pieces []byte
		for rest := body; len(rest) > 0; {
			k := min(rng.IntN(50), len(rest))
			pieces = append(pieces, berise(rng, raw.Element{Tag: 4, Body: rest[:k]})...)
			rest = rest[k:]
		}
		return raw.Indefinite(0x24, pieces)
	}
	return raw.TLV(e.Tag, body)
}

// TestNormaliseUndoesBER: a message in any form of BER becomes the DER it was made from, and is read and verified.
func TestNormaliseUndoesBER(t *testing.T) {
	t.Parallel()
	message, err := device().signer(t).Sign(cms.SignedDataConfig{Content: content})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cms.Normalise(message, cms.Limits{}); err != nil || &got[0] != &message[0] {
		t.Fatalf("what we write is not DER: %v\n%x", err, message)
	}
	e, _, err := raw.Read(message)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(300) {
		ber := berise(rand.New(rand.NewPCG(seed, 0)), e)
		got, err := cms.Normalise(ber, cms.Limits{})
		if err != nil || !bytes.Equal(got, message) {
			t.Fatalf("seed %d: %v\n got %x\nfrom %x\nwant %x", seed, err, got, ber, message)
		}
		if seed%50 == 0 {
			sd, err := cms.ParseSignedData(ber, cms.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := sd.Verify(cms.VerifyOptions{}); err != nil || !bytes.Equal(sd.Content, content) {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
	}
}
