package cms

import (
	"crypto"
	_ "crypto/md5"    // registers it for the legacy switch
	_ "crypto/sha1"   // registers it
	_ "crypto/sha256" // registers it
	_ "crypto/sha512" // registers SHA-384 and SHA-512
	"encoding/asn1"
	"fmt"
	"strconv"

	"github.com/certwright/certwright/pkg/der"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// oid is the content octets of an OBJECT IDENTIFIER. Arcs of any size compare, and nothing is allocated.
type oid string

// oidOf returns the octets of an OID; empty for one that cannot be encoded, which no message can have either.
func oidOf(o asn1.ObjectIdentifier) oid {
	b, err := der.AppendOID(make([]byte, 0, 32), o)
	if err != nil || len(b) < 3 || b[1] >= 0x80 {
		return ""
	}
	return oid(b[2:])
}

// Content types, RFC 5652, Sections 4, 5.1 and 6.1; attributes, Section 11.
const (
	oidData              oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"
	oidSignedData        oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
	oidEnvelopedData     oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03"
	oidAuthEnvelopedData oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x17" // RFC 5083, Section 2.1
	oidContentType       oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03"
	oidMessageDigest     oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04"
	oidSigningTime       oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x05"
)

// Digests (RFC 3370, Section 2; RFC 5754, Section 2), keys and signatures (RFC 3370, Section 3.2; RFC 4055; RFC 5753;
// RFC 5754, Section 3; RFC 8419).
const (
	oidMD5    oid = "\x2a\x86\x48\x86\xf7\x0d\x02\x05"
	oidSHA1   oid = "\x2b\x0e\x03\x02\x1a"
	oidSHA256 oid = "\x60\x86\x48\x01\x65\x03\x04\x02\x01"
	oidSHA384 oid = "\x60\x86\x48\x01\x65\x03\x04\x02\x02"
	oidSHA512 oid = "\x60\x86\x48\x01\x65\x03\x04\x02\x03"

	oidRSA           oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01" // rsaEncryption
	oidMD5WithRSA    oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04"
	oidSHA1WithRSA   oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05"
	oidOAEP          oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07" // id-RSAES-OAEP
	oidMGF1          oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08"
	oidPSpecified    oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x09"
	oidPSS           oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a" // id-RSASSA-PSS
	oidSHA256WithRSA oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"
	oidSHA384WithRSA oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c"
	oidSHA512WithRSA oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d"

	oidECPublicKey     oid = "\x2a\x86\x48\xce\x3d\x02\x01"
	oidECDSAWithSHA1   oid = "\x2a\x86\x48\xce\x3d\x04\x01"
	oidECDSAWithSHA256 oid = "\x2a\x86\x48\xce\x3d\x04\x03\x02"
	oidECDSAWithSHA384 oid = "\x2a\x86\x48\xce\x3d\x04\x03\x03"
	oidECDSAWithSHA512 oid = "\x2a\x86\x48\xce\x3d\x04\x03\x04"
	oidEd25519         oid = "\x2b\x65\x70"
)

// Content encryption (RFC 3370, Section 5.1; RFC 3565, Section 4.1) and what password recipients use (RFC 8018,
// Appendices A.2 and B.1; RFC 3211, Section 2.2).
const (
	oidDESCBC    oid = "\x2b\x0e\x03\x02\x07"
	oidDES3CBC   oid = "\x2a\x86\x48\x86\xf7\x0d\x03\x07"
	oidAES128CBC oid = "\x60\x86\x48\x01\x65\x03\x04\x01\x02"
	oidAES192CBC oid = "\x60\x86\x48\x01\x65\x03\x04\x01\x16"
	oidAES256CBC oid = "\x60\x86\x48\x01\x65\x03\x04\x01\x2a"

	oidPBKDF2         oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c"
	oidPWRIKEK        oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x03\x09"
	oidHMACWithSHA1   oid = "\x2a\x86\x48\x86\xf7\x0d\x02\x07"
	oidHMACWithSHA256 oid = "\x2a\x86\x48\x86\xf7\x0d\x02\x09"
	oidHMACWithSHA384 oid = "\x2a\x86\x48\x86\xf7\x0d\x02\x0a"
	oidHMACWithSHA512 oid = "\x2a\x86\x48\x86\xf7\x0d\x02\x0b"
)

// digestOID returns the identifier of a digest that we write. MD5 is not among them.
func digestOID(h crypto.Hash) (oid, bool) {
	switch h {
	case crypto.SHA1:
		return oidSHA1, true
	case crypto.SHA256:
		return oidSHA256, true
	case crypto.SHA384:
		return oidSHA384, true
	case crypto.SHA512:
		return oidSHA512, true
	}
	return "", false
}

// digestOf returns the digest of an identifier, MD5 included; 0 for an unknown one.
func digestOf(id oid) crypto.Hash {
	switch id {
	case oidMD5:
		return crypto.MD5
	case oidSHA1:
		return crypto.SHA1
	case oidSHA256:
		return crypto.SHA256
	case oidSHA384:
		return crypto.SHA384
	case oidSHA512:
		return crypto.SHA512
	}
	return 0
}

// algorithm is an AlgorithmIdentifier.
type algorithm struct {
	id     oid
	params cryptobyte.String // none, or one element
}

// readAlgorithm reads an AlgorithmIdentifier with any identifier octet.
func readAlgorithm(s *cryptobyte.String, tag cbasn1.Tag) (a algorithm, ok bool) {
	var body, id cryptobyte.String
	if !s.ReadASN1(&body, tag) || !body.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) || !oneOrNone(body) {
		return a, false
	}
	return algorithm{oid(id), body}, true
}

// hasNoParams says that the parameters are absent or NULL, which many write where the standard says absent and the
// other way round (RFC 5754, Section 2).
func (a algorithm) hasNoParams() bool {
	return len(a.params) == 0 || len(a.params) == 2 && a.params[0] == tagNull && a.params[1] == 0
}

// oneOrNone says that s holds one element at the most.
func oneOrNone(s cryptobyte.String) bool {
	if s.Empty() {
		return true
	}
	var element cryptobyte.String
	var tag cbasn1.Tag
	return s.ReadAnyASN1Element(&element, &tag) && s.Empty()
}

// maxNamedOID is how many octets an OID in an error may have. Real ones have 20 at most; a stranger's can fill the message.
const maxNamedOID = 64

// String returns the dotted form, for errors; long ones and arcs beyond 64 bits are not told.
func (o oid) String() string {
	if len(o) > maxNamedOID {
		return "unreadable"
	}
	s, arc := "", uint64(0)
	for i := range len(o) {
		if arc > 1<<56 {
			return "unreadable"
		}
		arc = arc<<7 | uint64(o[i]&0x7f)
		if o[i] >= 0x80 {
			continue
		}
		if s == "" {
			first := min(arc/40, 2)
			s = strconv.FormatUint(first, 10)
			arc -= 40 * first
		}
		s += "." + strconv.FormatUint(arc, 10)
		arc = 0
	}
	return s
}

// Cipher is a content-encryption algorithm in CBC mode with the padding of RFC 5652, Section 6.3. The zero value is
// none.
type Cipher uint8

// The ciphers. DESCBC is only for devices that can do nothing else (RFC 8894, Section 2.9 forbids it).
const (
	AES128CBC Cipher = iota + 1
	AES192CBC
	AES256CBC
	DES3CBC // des-ede3-cbc, three keys
	DESCBC
)

type cipherSpec struct {
	name           string
	id             oid
	keyLen, blkLen int
}

var cipherSpecs = [...]cipherSpec{
	AES128CBC: {"AES-128-CBC", oidAES128CBC, 16, 16},
	AES192CBC: {"AES-192-CBC", oidAES192CBC, 24, 16},
	AES256CBC: {"AES-256-CBC", oidAES256CBC, 32, 16},
	DES3CBC:   {"3DES-CBC", oidDES3CBC, 24, 8},
	DESCBC:    {"DES-CBC", oidDESCBC, 8, 8},
}

// Ciphers returns all of them, the legacy one last.
func Ciphers() []Cipher { return []Cipher{AES128CBC, AES192CBC, AES256CBC, DES3CBC, DESCBC} }

// String returns a name such as "AES-128-CBC".
func (c Cipher) String() string {
	if c == 0 || int(c) >= len(cipherSpecs) {
		return fmt.Sprintf("cipher(%d)", uint8(c))
	}
	return cipherSpecs[c].name
}

// Legacy says that the cipher is refused unless an option allows it.
func (c Cipher) Legacy() bool { return c == DESCBC }

func (c Cipher) valid() bool       { return c >= AES128CBC && c <= DESCBC }
func (c Cipher) spec() *cipherSpec { return &cipherSpecs[c] }

func cipherOf(id oid) (Cipher, bool) {
	for c := AES128CBC; c <= DESCBC; c++ {
		if cipherSpecs[c].id == id {
			return c, true
		}
	}
	return 0, false
}

// KeyTransport is how a content-encryption key is encrypted to an RSA key. The zero value is PKCS #1 v1.5
// (rsaEncryption, RFC 3370, Section 4.2.1). Values compare with ==.
type KeyTransport struct {
	// OAEPHash makes it RSAES-OAEP with this hash (RFC 4055, Section 4); 0 is PKCS #1 v1.5.
	OAEPHash crypto.Hash
	// MGFHash is the hash of the mask generation function MGF1; 0 is OAEPHash.
	MGFHash crypto.Hash
}

// String returns a name such as "RSA-PKCS1v1.5" or "RSA-OAEP-SHA-256".
func (k KeyTransport) String() string {
	switch {
	case k.OAEPHash == 0:
		return "RSA-PKCS1v1.5"
	case k.MGFHash == 0 || k.MGFHash == k.OAEPHash:
		return "RSA-OAEP-" + k.OAEPHash.String()
	}
	return "RSA-OAEP-" + k.OAEPHash.String() + "-MGF1-" + k.MGFHash.String()
}
