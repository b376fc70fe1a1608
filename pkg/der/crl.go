package der

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"math"
	"math/big"
	"time"
)

// CRLEntry is one element of revokedCertificates (RFC 5280, Section 5.1.2.6).
type CRLEntry struct {
	// SerialNumber holds content octets as in [CertificateFields]; serials that
	// other CAs gave must be of that form too.
	SerialNumber []byte
	// RevocationDate in whole seconds.
	RevocationDate time.Time
	// Reason is a CRLReason by its number (RFC 5280, Section 5.3.1): 0 to 10
	// without 7. 0, unspecified, writes no extension, as the RFC recommends.
	// 8, removeFromCRL, may stand in delta CRLs only; the entry cannot know.
	Reason int
	// InvalidityDate in whole seconds; zero for none.
	InvalidityDate time.Time
}

// AppendCRLEntry appends an entry. Callers may keep entries encoded and hand
// them to [WriteCRL] again and again. A value that does not fit is a
// *ValueError.
func AppendCRLEntry(dst []byte, e *CRLEntry) ([]byte, error) {
	if err := checkSerialNumber(e.SerialNumber); err != nil {
		return nil, err
	}
	if e.Reason < 0 || e.Reason == 7 || e.Reason > 10 {
		return nil, invalid("reasonCode", "not defined")
	}
	var room [17]byte
	date, err := AppendTime(room[:0], e.RevocationDate)
	if err != nil {
		return nil, fmt.Errorf("revocationDate: %w", err)
	}
	const (
		reasonSize = 12 // SEQUENCE { OID, OCTET STRING { ENUMERATED } }
		dateSize   = 26 // SEQUENCE { OID, OCTET STRING { GeneralizedTime } }
	)
	extensions := 0
	if e.Reason != 0 {
		extensions += reasonSize
	}
	if !e.InvalidityDate.IsZero() {
		extensions += dateSize
	}
	n := SizeTLV(len(e.SerialNumber)) + len(date)
	if extensions > 0 {
		n += SizeTLV(extensions)
	}
	dst = AppendHeader(dst, tagSequence, n)
	dst = AppendTLV(dst, tagInteger, e.SerialNumber)
	dst = append(dst, date...)
	if extensions == 0 {
		return dst, nil
	}
	dst = AppendHeader(dst, tagSequence, extensions)
	if e.Reason != 0 {
		dst = appendExtensionHeader(dst, extReasonCode, false, 3)
		dst = append(dst, tagEnumerated, 1, byte(e.Reason))
	}
	if !e.InvalidityDate.IsZero() {
		dst = appendExtensionHeader(dst, extInvalidityDate, false, 17)
		// RFC 5280, Section 5.3.2: GeneralizedTime, before 2050 too.
		if dst, err = AppendGeneralizedTime(dst, e.InvalidityDate); err != nil {
			return nil, fmt.Errorf("invalidityDate: %w", err)
		}
	}
	return dst, nil
}

// ReasonFlags is a set of revocation reasons, with the bits of RFC 5280, Section
// 4.2.1.13: named bit i is 1<<i. Bit 0 is unused.
type ReasonFlags uint16

// The reasons of ReasonFlags.
const (
	ReasonKeyCompromise        ReasonFlags = 1 << 1
	ReasonCACompromise         ReasonFlags = 1 << 2
	ReasonAffiliationChanged   ReasonFlags = 1 << 3
	ReasonSuperseded           ReasonFlags = 1 << 4
	ReasonCessationOfOperation ReasonFlags = 1 << 5
	ReasonCertificateHold      ReasonFlags = 1 << 6
	ReasonPrivilegeWithdrawn   ReasonFlags = 1 << 7
	ReasonAACompromise         ReasonFlags = 1 << 8
)

// IssuingDistributionPoint says that a CRL does not cover everything its issuer
// has issued (RFC 5280, Section 5.2.5). The extension is critical. CRLs here
// are never indirect.
type IssuingDistributionPoint struct {
	// URLs are all addresses ever put in certificates for this CRL; a verifier
	// matches one of them with the certificate's distribution point.
	URLs []string
	// OnlyContainsUserCerts and OnlyContainsCACerts exclude each other.
	OnlyContainsUserCerts, OnlyContainsCACerts bool
	// OnlySomeReasons limits the CRL to some reasons; 0 covers all.
	OnlySomeReasons ReasonFlags
}

func appendIssuingDistributionPoint(dst []byte, p *IssuingDistributionPoint) ([]byte, error) {
	var content []byte
	if len(p.URLs) > 0 {
		names, err := appendURLs(nil, p.URLs)
		if err != nil {
			return nil, err
		}
		content = AppendTLV(content, 0xa0, AppendTLV(nil, 0xa0, names)) // distributionPoint, fullName
	}
	if p.OnlyContainsUserCerts {
		content = append(content, 0x81, 1, 0xff)
	}
	if p.OnlyContainsCACerts {
		content = append(content, 0x82, 1, 0xff)
	}
	if p.OnlySomeReasons != 0 {
		if p.OnlySomeReasons&1 != 0 || p.OnlySomeReasons >= ReasonAACompromise<<1 {
			return nil, invalid("onlySomeReasons", "bit that is not defined")
		}
		content = appendNamedBits(content, 0x83, uint32(p.OnlySomeReasons))
	}
	if len(content) == 0 {
		return nil, invalid("issuingDistributionPoint", "empty") // RFC 5280, Section 5.2.5
	}
	if p.OnlyContainsUserCerts && p.OnlyContainsCACerts {
		return nil, invalid("issuingDistributionPoint", "only user and only CA certificates")
	}
	return AppendTLV(dst, tagSequence, content), nil
}

// CRLConfig is a CRL without its entries. Nothing of it is kept by [WriteCRL].
type CRLConfig struct {
	// SignatureAlgorithm of the issuer's key. Required.
	SignatureAlgorithm *SignatureAlgorithm
	// Issuer is the DER of the issuer's subject Name, copied byte for byte.
	// Required, not empty.
	Issuer []byte
	// AuthorityKeyID is the issuer's subject key identifier. Required (RFC
	// 5280, Section 5.2.1).
	AuthorityKeyID []byte
	// Number is cRLNumber, 0 to 2^159-1. Required (RFC 5280, Section 5.2.3).
	Number *big.Int
	// ThisUpdate and NextUpdate in whole seconds; NextUpdate is required (RFC
	// 5280, Section 5.1.2.5) and later.
	ThisUpdate, NextUpdate time.Time
	// IssuingDistributionPoint is nil for a CRL that covers everything.
	IssuingDistributionPoint *IssuingDistributionPoint
	// DeltaBase is the number of the complete CRL this delta builds on, at most
	// Number; nil for a complete CRL. The indicator is critical.
	DeltaBase *big.Int
	// FreshestCRL are the addresses of the delta CRL; only in complete CRLs.
	FreshestCRL []string
}

// appendBeforeEntries appends the fields before revokedCertificates.
func (c *CRLConfig) appendBeforeEntries(dst []byte) ([]byte, error) {
	switch {
	case c.SignatureAlgorithm == nil:
		return nil, invalid("signatureAlgorithm", "absent")
	case !checkName(c.Issuer) || string(c.Issuer) == emptyName:
		return nil, invalid("issuer", "not the DER of a non-empty Name") // RFC 5280, Section 5.1.2.3
	case !c.NextUpdate.After(c.ThisUpdate):
		return nil, invalid("nextUpdate", "not after thisUpdate")
	}
	dst = AppendInt(dst, 1) // v2
	dst = append(dst, c.SignatureAlgorithm.identifier...)
	dst = append(dst, c.Issuer...)
	dst, err := AppendTime(dst, c.ThisUpdate)
	if err != nil {
		return nil, fmt.Errorf("thisUpdate: %w", err)
	}
	if dst, err = AppendTime(dst, c.NextUpdate); err != nil {
		return nil, fmt.Errorf("nextUpdate: %w", err)
	}
	return dst, nil
}

// appendExtensions appends crlExtensions.
func (c *CRLConfig) appendExtensions(dst []byte) ([]byte, error) {
	if len(c.AuthorityKeyID) == 0 {
		return nil, invalid("authorityKeyIdentifier", "absent")
	}
	number, err := AppendBigInt(nil, c.Number)
	if err != nil {
		return nil, fmt.Errorf("cRLNumber: %w", err)
	}
	content := appendExtension(nil, extAuthorityKeyID, false, appendAuthorityKeyID(nil, c.AuthorityKeyID))
	content = appendExtension(content, extCRLNumber, false, number)
	if c.DeltaBase != nil {
		base, err := AppendBigInt(nil, c.DeltaBase)
		if err != nil {
			return nil, fmt.Errorf("deltaCRLIndicator: %w", err)
		}
		if c.DeltaBase.Cmp(c.Number) > 0 {
			return nil, invalid("deltaCRLIndicator", "base number above cRLNumber")
		}
		content = appendExtension(content, extDeltaCRLIndicator, true, base) // RFC 5280, Section 5.2.4
	}
	if c.IssuingDistributionPoint != nil {
		value, err := appendIssuingDistributionPoint(nil, c.IssuingDistributionPoint)
		if err != nil {
			return nil, fmt.Errorf("issuingDistributionPoint: %w", err)
		}
		content = appendExtension(content, extIssuingDistribution, true, value)
	}
	if len(c.FreshestCRL) > 0 {
		if c.DeltaBase != nil {
			return nil, invalid("freshestCRL", "in a delta CRL") // RFC 5280, Section 5.2.6
		}
		value, err := appendDistributionPoints(nil, c.FreshestCRL)
		if err != nil {
			return nil, fmt.Errorf("freshestCRL: %w", err)
		}
		content = appendExtension(content, extFreshestCRL, false, value)
	}
	return AppendTLV(dst, 0xa0, AppendTLV(nil, tagSequence, content)), nil
}

// CRLEntries is a source of encoded entries. The zero value has none.
type CRLEntries struct {
	// Size is the sum of the octets of all entries.
	Size int64
	// All yields the entries in chunks of any number of whole entries, as
	// [AppendCRLEntry] makes them. It is run twice and must yield the same
	// octets in the same order, though it may cut them differently. A yielded
	// chunk is not kept, so its memory may be reused. An error ends the CRL.
	// All may be nil when Size is 0.
	All iter.Seq2[[]byte, error]
}

// EncodedEntries returns a source of entries that are in memory. The chunks
// hold whole entries and must not change while the source is in use.
func EncodedEntries(chunks ...[]byte) CRLEntries {
	e := CRLEntries{All: func(yield func([]byte, error) bool) {
		for _, chunk := range chunks {
			if !yield(chunk, nil) {
				return
			}
		}
	}}
	for _, chunk := range chunks {
		e.Size += int64(len(chunk))
	}
	return e
}

// errEntriesChanged: what was signed is not what would be written.
var errEntriesChanged = errors.New("CRL entries changed between signing and writing")

// crlBuffer is large enough that single entries do not cost a call each.
const crlBuffer = 32 << 10

// WriteCRL writes a CertificateList (RFC 5280, Section 5.1) in DER, signed once
// by signer, whose key must be of the configured algorithm. Memory does not
// grow with the number of entries: they are run through once for the hash and
// once for the output. Ed25519 signs the message and not a hash, so there the
// whole TBSCertList is held in memory.
//
// No entries leave revokedCertificates out (Section 5.1.2.6). A value that does
// not fit, a chunk that is not made of whole entries and a total other than
// Size are a *ValueError, before anything is written. After any other error w
// may have received part of a CRL, which must be thrown away: errors of the
// source and of w, and a source that differs the second time.
func WriteCRL(w io.Writer, c *CRLConfig, entries CRLEntries, signer crypto.Signer) error {
	l := &crlWriter{entries: entries, compare: true, seed: maphash.MakeSeed()}
	before, after, err := l.sign(c, signer)
	if err != nil {
		return err
	}
	b := bufio.NewWriterSize(w, crlBuffer)
	b.Write(before)
	sum, err := l.writeEntries(b)
	if err != nil {
		var ve *ValueError
		if errors.As(err, &ve) {
			return errEntriesChanged // the same check was passed before
		}
		return err
	}
	if sum != l.signed {
		return errEntriesChanged
	}
	b.Write(after)
	if err := b.Flush(); err != nil {
		return fmt.Errorf("writing CRL: %w", err)
	}
	return nil
}

// SignCRL signs a CRL as [WriteCRL] does and returns what stands before its
// entries and behind them, so that entries which are in memory need not be
// copied: the CRL is before, the entries in the order of the source, after. The
// source is run through once. Errors are those of WriteCRL.
func SignCRL(c *CRLConfig, entries CRLEntries, signer crypto.Signer) (before, after []byte, err error) {
	l := &crlWriter{entries: entries}
	return l.sign(c, signer)
}

func (l *crlWriter) sign(c *CRLConfig, signer crypto.Signer) (before, after []byte, err error) {
	entries := l.entries
	head, err := c.appendBeforeEntries(nil)
	if err != nil {
		return nil, nil, err
	}
	tail, err := c.appendExtensions(nil)
	if err != nil {
		return nil, nil, err
	}
	if entries.Size < 0 || entries.Size > math.MaxInt-(1<<20) || entries.Size > 0 && entries.All == nil {
		return nil, nil, invalid("revokedCertificates", "Size out of range or without entries")
	}
	size := int(entries.Size)
	if size > 0 {
		head = AppendHeader(head, tagSequence, size)
	}
	n := len(head) + size + len(tail)
	head = append(AppendHeader(make([]byte, 0, len(head)+16), tagSequence, n), head...)

	a := c.SignatureAlgorithm
	var toSign []byte
	if a.hash == 0 {
		var tbs bytes.Buffer
		tbs.Grow(SizeTLV(n))
		if err := l.writeTBS(&tbs, head, tail); err != nil {
			return nil, nil, err
		}
		toSign = tbs.Bytes()
	} else {
		digest := a.hash.New()
		b := bufio.NewWriterSize(digest, crlBuffer)
		if err := l.writeTBS(b, head, tail); err != nil {
			return nil, nil, err
		}
		if err := b.Flush(); err != nil {
			return nil, nil, err
		}
		toSign = digest.Sum(nil)
	}
	signature, err := a.sign(rand.Reader, signer, toSign)
	if err != nil {
		return nil, nil, err
	}
	before = AppendHeader(make([]byte, 0, len(head)+8), tagSequence, SizeTLV(n)+len(a.identifier)+SizeTLV(len(signature)+1))
	before = append(before, head...)
	after = append(tail, a.identifier...)
	return before, AppendBitString(after, signature), nil
}

// crlWriter writes the entries of a CRL as often as wanted.
type crlWriter struct {
	entries CRLEntries
	compare bool // they are run through twice
	seed    maphash.Seed
	signed  uint64 // checksum of the entries that were signed
}

// writeTBS writes the TBSCertList to w, and notes the checksum of its entries.
func (l *crlWriter) writeTBS(w io.Writer, head, tail []byte) (err error) {
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("writing CRL: %w", err)
	}
	if l.signed, err = l.writeEntries(w); err != nil {
		return err
	}
	if _, err := w.Write(tail); err != nil {
		return fmt.Errorf("writing CRL: %w", err)
	}
	return nil
}

// writeEntries writes the entries to w and returns a checksum of them, so that a
// source that yields something else the second time is noticed: its CRL would
// have a wrong signature and lock everybody out.
func (l *crlWriter) writeEntries(w io.Writer) (uint64, error) {
	var sum maphash.Hash
	if l.compare {
		sum.SetSeed(l.seed)
	}
	var total int64
	if l.entries.Size > 0 {
		for chunk, err := range l.entries.All {
			if err != nil {
				return 0, fmt.Errorf("reading CRL entries: %w", err)
			}
			if !wholeEntries(chunk) {
				return 0, invalid("revokedCertificates", "chunk is not made of whole entries")
			}
			if total += int64(len(chunk)); total > l.entries.Size {
				break
			}
			if l.compare {
				sum.Write(chunk)
			}
			if _, err := w.Write(chunk); err != nil {
				return 0, fmt.Errorf("writing CRL: %w", err)
			}
		}
	}
	if total != l.entries.Size {
		return 0, invalid("revokedCertificates", "entries do not add up to Size")
	}
	if !l.compare {
		return 0, nil
	}
	return sum.Sum64(), nil
}

// wholeEntries reports whether chunk is a row of entries, by their outermost
// header and that of the serial number. The largest entry has 22 + 17 + 40
// octets, so its length takes one.
func wholeEntries(chunk []byte) bool {
	const smallest = 3 + 15 // a serial number of one octet and a UTCTime
	for len(chunk) > 0 {
		if len(chunk) < 2+smallest || chunk[0] != tagSequence || chunk[1] < smallest || chunk[1] >= 0x80 ||
			int(chunk[1]) > len(chunk)-2 || chunk[2] != tagInteger {
			return false
		}
		chunk = chunk[2+int(chunk[1]):]
	}
	return true
}

// RedateCRLEntry appends an entry that AppendCRLEntry made, with another
// revocationDate in whole seconds. What is no such entry is a *ValueError.
func RedateCRLEntry(dst, entry []byte, revocationDate time.Time) ([]byte, error) {
	if !wholeEntries(entry) || int(entry[1]) != len(entry)-2 || 4+int(entry[3])+2 > len(entry) {
		return nil, invalid("revokedCertificates", "not one entry")
	}
	serial := entry[2 : 4+int(entry[3])]
	rest := entry[2+len(serial):]
	if n := 2 + int(rest[1]); n > len(rest) {
		return nil, invalid("revokedCertificates", "not one entry")
	} else {
		rest = rest[n:]
	}
	var room [17]byte
	date, err := AppendTime(room[:0], revocationDate)
	if err != nil {
		return nil, fmt.Errorf("revocationDate: %w", err)
	}
	dst = AppendHeader(dst, tagSequence, len(serial)+len(date)+len(rest))
	dst = append(dst, serial...)
	dst = append(dst, date...)
	return append(dst, rest...), nil
}
