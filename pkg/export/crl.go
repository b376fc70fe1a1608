package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"math/big"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The extensions that tell the scopes of CRLs apart, and their numbers (RFC 5280, Section 5.2).
var (
	oidAuthorityKeyID = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidCRLNumber      = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidDelta          = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIDP            = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// numbers are the cRLNumbers of the CRLs in a file, by what they speak of: issuer, key and scope, as a short hash. A file
// that holds no CRL has none.
type numbers map[string]*big.Int

// numbersOf reads a CRL in DER, or those in a PEM file. It passes over entries without looking at them: their number makes
// no difference.
func numbersOf(content []byte) numbers {
	all := numbers{}
	if len(content) > 0 && content[0] == 0x30 {
		all.add(content)
		return all
	}
	const begin = "-----BEGIN X509 CRL-----" // RFC 7468, Section 6
	for bytes.HasPrefix(bytes.TrimLeft(content, " \t\r\n"), []byte(begin)) {
		block, rest := pem.Decode(content)
		if block == nil {
			break
		}
		all.add(block.Bytes)
		content = rest
	}
	return all
}

// add reads the parts of a CertificateList (RFC 5280, Section 5.1) that tell which it is. What is none, or has no number,
// adds nothing.
func (n numbers) add(der []byte) {
	input := cryptobyte.String(der)
	var list, tbs, issuer, wrapped, extensions cryptobyte.String
	if !input.ReadASN1(&list, cbasn1.SEQUENCE) || !list.ReadASN1(&tbs, cbasn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(cbasn1.INTEGER) || !tbs.SkipASN1(cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&issuer, cbasn1.SEQUENCE) ||
		!skipTime(&tbs) || !skipTime(&tbs) || // thisUpdate, and nextUpdate, which is optional
		!tbs.SkipOptionalASN1(cbasn1.SEQUENCE) || // revokedCertificates
		!tbs.ReadASN1(&wrapped, cbasn1.Tag(0).ContextSpecific().Constructed()) || !wrapped.ReadASN1(&extensions, cbasn1.SEQUENCE) {
		return
	}
	var number *big.Int
	scope := sha256.New()
	scope.Write(issuer)
	for !extensions.Empty() {
		var ext, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !extensions.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&oid) ||
			!ext.SkipOptionalASN1(cbasn1.BOOLEAN) || !ext.ReadASN1(&value, cbasn1.OCTET_STRING) {
			return
		}
		switch {
		case oid.Equal(oidCRLNumber):
			number = new(big.Int)
			if !value.ReadASN1Integer(number) {
				return
			}
		case oid.Equal(oidAuthorityKeyID), oid.Equal(oidIDP):
			scope.Write(value)
		case oid.Equal(oidDelta): // its value, the number of the base, changes
			scope.Write([]byte("delta"))
		}
	}
	if number == nil {
		return
	}
	id := hex.EncodeToString(scope.Sum(nil)[:8])
	if other := n[id]; other == nil || other.Cmp(number) < 0 {
		n[id] = number
	}
}

// skipTime passes over a Time, if there is one.
func skipTime(s *cryptobyte.String) bool {
	if s.PeekASN1Tag(cbasn1.UTCTime) {
		return s.SkipASN1(cbasn1.UTCTime)
	}
	return s.SkipOptionalASN1(cbasn1.GeneralizedTime)
}

// olderThan reports whether a file with these numbers must not take the place of one with those others: one of its CRLs
// would go back.
func (n numbers) olderThan(others numbers) bool {
	for id, number := range n {
		if other := others[id]; other != nil && number.Cmp(other) < 0 {
			return true
		}
	}
	return false
}

// String returns a form that parseNumbers reads.
func (n numbers) String() string {
	var parts []string
	for _, id := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, id+":"+n[id].Text(16))
	}
	return strings.Join(parts, " ")
}

// parseNumbers reads what String has written; false when it is something else.
func parseNumbers(text string) (numbers, bool) {
	all := numbers{}
	for part := range strings.FieldsSeq(text) {
		id, digits, ok := strings.Cut(part, ":")
		number, valid := new(big.Int).SetString(digits, 16)
		if !ok || !valid || len(id) != 16 {
			return nil, false
		}
		all[id] = number
	}
	return all, true
}
