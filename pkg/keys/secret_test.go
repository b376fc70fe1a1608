package keys_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/certwright/certwright/pkg/keys"
)

func TestSecret(t *testing.T) {
	kek, other := newKEK(t), newKEK(t)
	sealed, err := keys.SealSecret(kek, "point/default", []byte("a secret"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("a secret")) {
		t.Error("the secret stands in the sealed bytes")
	}
	if again, err := keys.SealSecret(kek, "point/default", []byte("a secret")); err != nil || bytes.Equal(again, sealed) {
		t.Errorf("sealing twice gives the same bytes, or %v", err)
	}
	if got, err := keys.OpenSecret(kek, "point/default", sealed); err != nil || string(got) != "a secret" {
		t.Errorf("OpenSecret = %q, %v", got, err)
	}
	if _, err := keys.OpenSecret(kek, "point/other", sealed); !errors.Is(err, keys.ErrWrongPurpose) {
		t.Errorf("OpenSecret under another name: %v, want ErrWrongPurpose", err)
	}
	if _, err := keys.OpenSecret(other, "point/default", sealed); !errors.Is(err, keys.ErrWrongKEK) {
		t.Errorf("OpenSecret with another KEK: %v, want ErrWrongKEK", err)
	}
	if _, err := keys.Open(kek, "secret", sealed); !errors.Is(err, keys.ErrCorrupt) {
		t.Errorf("a sealed secret opened as a key: %v, want ErrCorrupt", err)
	}
	rewrapped, err := keys.RewrapSecret(kek, other, sealed)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.OpenSecret(other, "point/default", rewrapped); err != nil || string(got) != "a secret" {
		t.Errorf("OpenSecret after RewrapSecret = %q, %v", got, err)
	}
	if _, err := keys.RewrapSecret(other, kek, sealed); !errors.Is(err, keys.ErrWrongKEK) {
		t.Errorf("RewrapSecret from the wrong KEK: %v, want ErrWrongKEK", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := keys.OpenSecret(kek, "point/default", bad); err == nil {
			t.Fatalf("OpenSecret took octet %d changed", i)
		}
	}
	for _, n := range []int{0, keys.MaxSecretBytes + 1} {
		if _, err := keys.SealSecret(kek, "x", make([]byte, n)); err == nil {
			t.Errorf("SealSecret took %d octets", n)
		}
	}
	if b, err := keys.SealSecret(kek, "x", make([]byte, keys.MaxSecretBytes)); err != nil || len(b) > keys.MaxSealedBytes {
		t.Errorf("SealSecret of the largest = %d octets, %v", len(b), err)
	}
}
