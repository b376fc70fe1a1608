package keys

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
)

// MaxWeakListEntries is how many keys a list may name, about 200 MiB of
// memory.
const MaxWeakListEntries = 4 << 20

// debianSize is the length in octets of the digests in Debian's
// openssl-blacklist: the end of a SHA-1 digest.
const debianSize = 10

// WeakList is a set of public keys known to be compromised. A nil list and
// the zero value are empty. It does not change after [ReadWeakList], so it is
// safe for concurrent use.
type WeakList struct {
	sha256  map[[sha256.Size]byte]struct{}
	sha1    map[[sha1.Size]byte]struct{}
	debian  map[[debianSize]byte]struct{}
	entries int
}

// ReadWeakList reads a list: text, one digest a line in hex of either case.
// Empty lines, and everything after "#", are ignored. The length tells what
// was digested:
//
//   - 64 digits: SHA-256 of the DER SubjectPublicKeyInfo
//   - 40 digits: SHA-1 of the DER SubjectPublicKeyInfo, or of the line
//     "Modulus=HEX\n" that openssl rsa -noout -modulus prints
//   - 20 digits: the last 20 digits of the latter, as in the files of
//     Debian's openssl-blacklist
//
// Any other line is an error that names its number; so are more than
// [MaxWeakListEntries] keys.
func ReadWeakList(r io.Reader) (*WeakList, error) {
	list := &WeakList{
		sha256: make(map[[sha256.Size]byte]struct{}),
		sha1:   make(map[[sha1.Size]byte]struct{}),
		debian: make(map[[debianSize]byte]struct{}),
	}
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		text, _, _ := bytes.Cut(lines.Bytes(), []byte("#"))
		text = bytes.TrimSpace(text)
		if len(text) == 0 {
			continue
		}
		digest := make([]byte, hex.DecodedLen(len(text)))
		if _, err := hex.Decode(digest, text); err != nil {
			return nil, fmt.Errorf("weak-key list, line %d: %w", number, err)
		}
		switch len(digest) {
		case sha256.Size:
			list.sha256[[sha256.Size]byte(digest)] = struct{}{}
		case sha1.Size:
			list.sha1[[sha1.Size]byte(digest)] = struct{}{}
		case debianSize:
			list.debian[[debianSize]byte(digest)] = struct{}{}
		default:
			return nil, fmt.Errorf("weak-key list, line %d: %d hex digits instead of 64, 40 or 20", number, len(text))
		}
		list.entries = len(list.sha256) + len(list.sha1) + len(list.debian)
		if list.entries > MaxWeakListEntries {
			return nil, fmt.Errorf("weak-key list has more than %d keys", MaxWeakListEntries)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading weak-key list: %w", err)
	}
	return list, nil
}

// Len is the number of distinct digests.
func (l *WeakList) Len() int {
	if l == nil {
		return 0
	}
	return l.entries
}

// Contains tells whether the list names pub. It fails for a key that has no
// SubjectPublicKeyInfo form.
func (l *WeakList) Contains(pub crypto.PublicKey) (bool, error) {
	if l.Len() == 0 {
		return false, nil
	}
	if len(l.sha256) > 0 || len(l.sha1) > 0 {
		spki, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			return false, fmt.Errorf("encoding public key: %w", err)
		}
		if _, ok := l.sha256[sha256.Sum256(spki)]; ok {
			return true, nil
		}
		if len(l.sha1) > 0 {
			if _, ok := l.sha1[sha1.Sum(spki)]; ok {
				return true, nil
			}
		}
	}
	k, ok := pub.(*rsa.PublicKey)
	if !ok || len(l.sha1) == 0 && len(l.debian) == 0 {
		return false, nil
	}
	digest := sha1.Sum(fmt.Appendf(nil, "Modulus=%X\n", k.N))
	if _, ok := l.sha1[digest]; ok {
		return true, nil
	}
	_, ok = l.debian[[debianSize]byte(digest[sha1.Size-debianSize:])]
	return ok, nil
}
