package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"golang.org/x/crypto/argon2"
)

// secretSize is the length in octets of the secret in a key file, and of an
// AES-256 key.
const secretSize = 32

// Bounds of [Argon2Params], all allowed. The lowest are for tests and tiny
// machines; the highest keep a forged [KEKInfo] from stopping the process.
const (
	MinArgon2MemoryKiB = 8 << 10
	MaxArgon2MemoryKiB = 1 << 20
	MaxArgon2Time      = 16
	MaxArgon2Threads   = 16
	MinArgon2SaltBytes = 16
	MaxArgon2SaltBytes = 64

	MaxPassphraseBytes = 1024
)

var (
	// ErrWrongKEK says that another KEK, or another passphrase, is needed.
	// What it was tried on is not known to be damaged.
	ErrWrongKEK = errors.New("wrong key encryption key")

	// ErrArgon2Params says that a parameter is out of its bounds.
	ErrArgon2Params = errors.New("argon2 parameters out of bounds")

	// ErrPassphrase says that a passphrase is empty or too long.
	ErrPassphrase = errors.New("unusable passphrase")

	// ErrKeyFile says that a key file or credential does not hold a secret:
	// wrong length, or nothing but zeros.
	ErrKeyFile = errors.New("unusable key file")

	// ErrNoCredential says that the service manager passed no such
	// credential.
	ErrNoCredential = errors.New("no such systemd credential")
)

// KEKKind is where a KEK's secret comes from.
type KEKKind uint8

// Kinds of a KEK. There is no kind 0.
const (
	PassphraseKEK KEKKind = 1
	KeyFileKEK    KEKKind = 2 // key file or credential: the same 32 octets
)

// String returns "passphrase" or "keyfile".
func (k KEKKind) String() string {
	switch k {
	case PassphraseKEK:
		return "passphrase"
	case KeyFileKEK:
		return "keyfile"
	}
	return fmt.Sprintf("kek-kind(%d)", uint8(k))
}

// MarshalText is String for encoders; it refuses unknown kinds.
func (k KEKKind) MarshalText() ([]byte, error) {
	if k != PassphraseKEK && k != KeyFileKEK {
		return nil, fmt.Errorf("unknown KEK kind %d", uint8(k))
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads what String writes.
func (k *KEKKind) UnmarshalText(text []byte) error {
	switch string(text) {
	case "passphrase":
		*k = PassphraseKEK
	case "keyfile":
		*k = KeyFileKEK
	default:
		return fmt.Errorf("unknown KEK kind %q", text)
	}
	return nil
}

// Argon2Params are the inputs of argon2id, version 1.3, beside the passphrase
// (RFC 9106, Section 3.1). The zero value is refused; see [NewArgon2Params].
type Argon2Params struct {
	Salt      []byte `json:"salt"`
	MemoryKiB uint32 `json:"memory_kib"`
	Time      uint32 `json:"time"` // passes over the memory
	Threads   uint8  `json:"threads"`
}

// NewArgon2Params returns the second recommended option of RFC 9106, Section
// 4 (64 MiB, 3 passes, 4 lanes) with a new random salt of 16 octets.
func NewArgon2Params() Argon2Params {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails
	return Argon2Params{Salt: salt, MemoryKiB: 64 << 10, Time: 3, Threads: 4}
}

// Validate checks the bounds; its error is ErrArgon2Params.
func (p Argon2Params) Validate() error {
	if n := len(p.Salt); n < MinArgon2SaltBytes || n > MaxArgon2SaltBytes {
		return fmt.Errorf("%w: salt of %d octets, want %d to %d",
			ErrArgon2Params, n, MinArgon2SaltBytes, MaxArgon2SaltBytes)
	}
	if p.MemoryKiB < MinArgon2MemoryKiB || p.MemoryKiB > MaxArgon2MemoryKiB {
		return fmt.Errorf("%w: memory of %d KiB, want %d to %d",
			ErrArgon2Params, p.MemoryKiB, MinArgon2MemoryKiB, MaxArgon2MemoryKiB)
	}
	if p.Time < 1 || p.Time > MaxArgon2Time {
		return fmt.Errorf("%w: %d passes, want 1 to %d", ErrArgon2Params, p.Time, MaxArgon2Time)
	}
	if p.Threads < 1 || p.Threads > MaxArgon2Threads {
		return fmt.Errorf("%w: %d threads, want 1 to %d", ErrArgon2Params, p.Threads, MaxArgon2Threads)
	}
	return nil
}

// KEK is the key encryption key. It prints as its id, never as its secret,
// and the secret it was made from is not kept. It does not change, so it is
// safe for concurrent use. The zero value is no key: sealing and opening with
// it fail.
type KEK struct {
	// A function, since fmt and its like follow pointers in the unexported
	// fields of other structs (%s does), but never look into a function.
	k func() *kek
}

const kekIDSize = 8

type kek struct {
	id     [kekIDSize]byte
	kind   KEKKind
	argon2 *Argon2Params // of a passphrase KEK, else nil
	wrap   cipher.AEAD
	check  [sha256.Size]byte // MAC key of KEKInfo.Check
}

var errNoKEK = errors.New("no key encryption key")

// newKEK derives a KEK from 32 secret octets, and clears them.
//
// Three independent keys come from the secret (RFC 5869): one wraps, one is
// shown as the id, one authenticates the KEKInfo.
func newKEK(secret []byte, kind KEKKind, params *Argon2Params) (*KEK, error) {
	defer clear(secret)
	k := &kek{kind: kind, argon2: params}
	prk, err := hkdf.Extract(sha256.New, secret, nil)
	if err != nil {
		return nil, fmt.Errorf("deriving KEK: %w", err)
	}
	defer clear(prk)
	expand := func(info string, size int) []byte {
		if err != nil {
			return nil
		}
		var key []byte
		key, err = hkdf.Expand(sha256.New, prk, info, size)
		return key
	}
	wrap := expand("certwright kek v1 wrap", secretSize)
	check := expand("certwright kek v1 check", len(k.check))
	id := expand("certwright kek v1 id", len(k.id))
	defer clear(wrap)
	defer clear(check)
	if err != nil {
		return nil, fmt.Errorf("deriving KEK: %w", err)
	}
	copy(k.check[:], check)
	copy(k.id[:], id)
	if k.wrap, err = newAEAD(wrap); err != nil {
		return nil, err
	}
	return &KEK{func() *kek { return k }}, nil
}

// newAEAD is AES-256-GCM that draws a random nonce for each message and puts
// it in front. A KEK wraps a handful of keys and a data key seals one
// message, far below the 2^32 of NIST SP 800-38D, Section 8.3.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("making cipher: %w", err)
	}
	return aead, nil
}

// FromPassphrase derives a KEK with argon2id. The parameters are checked
// first (ErrArgon2Params), the passphrase must have 1 to
// [MaxPassphraseBytes] octets (ErrPassphrase), and the memory is given back
// to the operating system before returning. It takes some tenths of a second
// and is not meant for serving requests. The passphrase is used as it
// is, not kept and not cleared: line ends and that are the caller's.
func FromPassphrase(passphrase []byte, params Argon2Params) (*KEK, error) {
	if err := params.Validate(); err != nil {
		return nil, err
	}
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrPassphrase)
	}
	if len(passphrase) > MaxPassphraseBytes {
		return nil, fmt.Errorf("%w: longer than %d octets", ErrPassphrase, MaxPassphraseBytes)
	}
	params.Salt = slices.Clone(params.Salt)
	secret := argon2.IDKey(passphrase, params.Salt, params.Time, params.MemoryKiB, params.Threads, secretSize)
	debug.FreeOSMemory() // else the memory stays resident for good
	return newKEK(secret, PassphraseKEK, &params)
}

// CreateKeyFile makes a KEK of 32 random octets and writes them to a new file
// of mode 0600, durable on return. It never overwrites: an existing file is
// fs.ErrExist. Folders others can write to are refused with ErrUnsafeFile.
func CreateKeyFile(path string) (*KEK, error) {
	secret := make([]byte, secretSize)
	defer clear(secret)
	rand.Read(secret) // never fails
	if err := WriteFile(path, secret, false); err != nil {
		return nil, fmt.Errorf("creating key file: %w", err)
	}
	return newKEK(secret, KeyFileKEK, nil)
}

// FromKeyFile reads a KEK from a file that [CreateKeyFile] made, or that
// holds 32 octets as 64 hex digits and an optional line end.
//
// The file must be a regular one, owned by the process's user, without any
// rights for group or others, in a folder that others cannot write to; else
// the error is ErrUnsafeFile. A symbolic link is not followed. A missing file
// is fs.ErrNotExist, other contents are ErrKeyFile.
func FromKeyFile(path string) (*KEK, error) {
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	data, err := readFile(path, maxSecretFile, checkKeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	return fromSecretFile(path, data)
}

// FromCredential reads a KEK that systemd passed by LoadCredential= or
// LoadCredentialEncrypted=: the file name in $CREDENTIALS_DIRECTORY, with
// the same contents as a key file. One may replace the other: the same
// secret gives the same KEK.
//
// Without the variable or the file the error is ErrNoCredential. Unlike a key
// file, a credential may belong to root and have group rights, since systemd
// gives access by an ACL that shows up as such.
func FromCredential(name string) (*KEK, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, fmt.Errorf("%w: CREDENTIALS_DIRECTORY is not set", ErrNoCredential)
	}
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%w: CREDENTIALS_DIRECTORY is not an absolute path", ErrNoCredential)
	}
	if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
		return nil, fmt.Errorf("%w: %q is not a file name", ErrNoCredential, name)
	}
	path := filepath.Join(dir, name)
	data, err := readFile(path, maxSecretFile, checkCredential)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoCredential, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading credential: %w", err)
	}
	return fromSecretFile(path, data)
}

// maxSecretFile is 64 hex digits and a line end of two octets.
const maxSecretFile = 2*secretSize + 2

// fromSecretFile makes a KEK of a file's contents, and clears them.
func fromSecretFile(path string, data []byte) (*KEK, error) {
	defer clear(data)
	secret := data
	if text := bytes.TrimRight(data, "\r\n"); len(data) != secretSize && len(text) == 2*secretSize {
		secret = make([]byte, secretSize)
		defer clear(secret)
		if _, err := hex.Decode(secret, text); err != nil {
			// The cause would quote an octet of the secret.
			return nil, fmt.Errorf("%w: %s is not hex", ErrKeyFile, path)
		}
	}
	if len(secret) != secretSize {
		return nil, fmt.Errorf("%w: %s has %d octets instead of %d, or of 64 hex digits",
			ErrKeyFile, path, len(data), secretSize)
	}
	if bytes.Equal(secret, make([]byte, secretSize)) {
		return nil, fmt.Errorf("%w: %s holds only zeros", ErrKeyFile, path)
	}
	return newKEK(secret, KeyFileKEK, nil)
}

// ID names the KEK: 16 lower-case hex digits derived from its secret, which
// they do not give away. It is empty for the zero value.
func (k KEK) ID() string {
	if k.k == nil {
		return ""
	}
	return hex.EncodeToString(k.k().id[:])
}

// Kind tells how the KEK was made; 0 for the zero value.
func (k KEK) Kind() KEKKind {
	if k.k == nil {
		return 0
	}
	return k.k().kind
}

// String shows kind and id.
func (k KEK) String() string {
	if k.k == nil {
		return "KEK(none)"
	}
	return fmt.Sprintf("KEK(%v %s, secret not shown)", k.k().kind, k.ID())
}

// GoString is String.
func (k KEK) GoString() string { return k.String() }

// Format writes String for every verb and flag.
func (k KEK) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// LogValue is String for log/slog.
func (k KEK) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is String for encoders, so that no encoder looks inside.
func (k KEK) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// state returns the inside of a usable KEK.
func (k *KEK) state() (*kek, error) {
	if k == nil || k.k == nil {
		return nil, errNoKEK
	}
	return k.k(), nil
}
