package keys

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MaxKEKInfoBytes bounds what [ParseKEKInfo] reads.
const MaxKEKInfoBytes = 4 << 10

// ErrCorrupt says that sealed bytes, or a KEKInfo, are damaged or forged, as
// far as can be told: they do not have the form, or they do not authenticate
// under the KEK that they name.
var ErrCorrupt = errors.New("damaged or forged")

// KEKInfo is what the store keeps of a KEK: enough to make it again from the
// passphrase or the key file and to recognize it, and nothing secret. Whoever
// reads it can try passphrases at the cost of one argon2id each.
//
// Its JSON form is stable: [ParseKEKInfo] of every later version reads what
// this one wrote. Get one from [NewKEKInfo] or ParseKEKInfo; the zero value
// matches no KEK.
type KEKInfo struct {
	ID     string        `json:"id"` // as KEK.ID
	Kind   KEKKind       `json:"kind"`
	Argon2 *Argon2Params `json:"argon2,omitempty"` // of a passphrase KEK, else nil

	// Check is HMAC-SHA-256 over the other fields with a key that comes from
	// the KEK's secret.
	Check []byte `json:"check"`
}

// NewKEKInfo describes a KEK. It fails for the zero KEK only.
func NewKEKInfo(k *KEK) (KEKInfo, error) {
	s, err := k.state()
	if err != nil {
		return KEKInfo{}, err
	}
	info := KEKInfo{ID: k.ID(), Kind: s.kind}
	if s.argon2 != nil {
		params := *s.argon2
		params.Salt = slices.Clone(params.Salt)
		info.Argon2 = &params
	}
	info.Check = info.mac(s)
	return info, nil
}

// ParseKEKInfo reads the JSON form. Unknown fields, bad bounds and more than
// [MaxKEKInfoBytes] are ErrCorrupt. It does not need the KEK, hence proves
// nothing about the origin: see [KEKInfo.Verify].
func ParseKEKInfo(data []byte) (KEKInfo, error) {
	if len(data) > MaxKEKInfoBytes {
		return KEKInfo{}, fmt.Errorf("KEK description is longer than %d octets: %w", MaxKEKInfoBytes, ErrCorrupt)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var info KEKInfo
	if err := decoder.Decode(&info); err != nil {
		return KEKInfo{}, fmt.Errorf("KEK description is %w: %w", ErrCorrupt, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return KEKInfo{}, fmt.Errorf("KEK description is %w: more than one value", ErrCorrupt)
	}
	if err := info.validate(); err != nil {
		return KEKInfo{}, fmt.Errorf("KEK description is %w: %w", ErrCorrupt, err)
	}
	return info, nil
}

func (i KEKInfo) validate() error {
	if id, err := hex.DecodeString(i.ID); err != nil || len(id) != kekIDSize || hex.EncodeToString(id) != i.ID {
		return fmt.Errorf("id is not %d lower-case hex digits", 2*kekIDSize)
	}
	if len(i.Check) != sha256.Size {
		return fmt.Errorf("check value has %d octets instead of %d", len(i.Check), sha256.Size)
	}
	switch {
	case i.Kind == PassphraseKEK && i.Argon2 != nil:
		return i.Argon2.Validate()
	case i.Kind == KeyFileKEK && i.Argon2 == nil:
		return nil
	}
	return fmt.Errorf("kind %v does not go with its parameters", i.Kind)
}

// Verify tells whether k is the described KEK: ErrWrongKEK if it is another
// one, ErrCorrupt if it is the one but the description was altered.
func (i KEKInfo) Verify(k *KEK) error {
	s, err := k.state()
	if err != nil {
		return err
	}
	if i.ID != k.ID() {
		return fmt.Errorf("%w: %s is needed, %s was given", ErrWrongKEK, i.ID, k.ID())
	}
	if subtle.ConstantTimeCompare(i.Check, i.mac(s)) != 1 {
		return fmt.Errorf("description of KEK %s is %w", i.ID, ErrCorrupt)
	}
	return nil
}

// Open makes a passphrase KEK again and verifies it. A wrong passphrase is
// ErrWrongKEK, and so are altered parameters, which cannot be told from one.
// Parameters out of bounds are refused before deriving. For a KEK of kind
// [KeyFileKEK] read the file and call Verify.
func (i KEKInfo) Open(passphrase []byte) (*KEK, error) {
	if i.Kind != PassphraseKEK || i.Argon2 == nil {
		return nil, fmt.Errorf("%w: KEK %s is kept in a key file or credential, it has no passphrase", ErrWrongKEK, i.ID)
	}
	k, err := FromPassphrase(passphrase, *i.Argon2)
	if err != nil {
		return nil, err
	}
	if err := i.Verify(k); err != nil {
		return nil, err
	}
	return k, nil
}

// mac is the check value that i should have under s. Each field of variable
// length is preceded by its length, so that no two descriptions have the same
// input.
func (i KEKInfo) mac(s *kek) []byte {
	input := []byte("certwright kek info v1")
	input = append(input, byte(i.Kind))
	input = append(input, byte(len(i.ID)))
	input = append(input, i.ID...)
	if p := i.Argon2; p != nil {
		input = append(input, 1, byte(len(p.Salt)))
		input = append(input, p.Salt...)
		input = binary.BigEndian.AppendUint32(input, p.MemoryKiB)
		input = binary.BigEndian.AppendUint32(input, p.Time)
		input = append(input, p.Threads)
	} else {
		input = append(input, 0)
	}
	h := hmac.New(sha256.New, s.check[:])
	h.Write(input)
	return h.Sum(nil)
}
