package der_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/der"
)

func crlConfig(t testing.TB, signer crypto.Signer) der.CRLConfig {
	return der.CRLConfig{
		SignatureAlgorithm: algorithmOf(t, signer),
		Issuer:             name(t, cn("Example CA")),
		AuthorityKeyID:     der.SubjectKeyID(spkiOf(t, signer.Public())),
		Number:             big.NewInt(1793534400),
		ThisUpdate:         start,
		NextUpdate:         start.AddDate(0, 0, 7),
	}
}

func entry(t testing.TB, e der.CRLEntry) []byte {
	t.Helper()
	raw, err := der.AppendCRLEntry(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func writeCRL(t testing.TB, c *der.CRLConfig, entries der.CRLEntries, signer crypto.Signer) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := der.WriteCRL(&out, c, entries, signer); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestCRLAgainstX509 compares what crypto/x509 reads from our encoding and from
// its own of the same CRL. Go has no fields for invalidityDate, IDP, delta
// indicator and freshest CRL; it is given them as raw extensions that
// encoding/asn1 made.
func TestCRLAgainstX509(t *testing.T) {
	signers := []crypto.Signer{ed25519Key(), p256(t), fixedKey(t, elliptic.P521(), 1)}
	issuerName := name(t, cn("Example CA"))
	marshal := func(value any, params string) []byte {
		raw, err := asn1.MarshalWithParams(value, params)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	type distributionPointName struct {
		FullName []asn1.RawValue `asn1:"optional,tag:0"`
	}
	type distributionPoint struct {
		DistributionPoint distributionPointName `asn1:"optional,tag:0"`
	}
	type issuingDistributionPoint struct {
		DistributionPoint     distributionPointName `asn1:"optional,tag:0"`
		OnlyContainsUserCerts bool                  `asn1:"optional,tag:1"`
		OnlyContainsCACerts   bool                  `asn1:"optional,tag:2"`
		OnlySomeReasons       asn1.BitString        `asn1:"optional,tag:3"`
	}
	uris := func(urls []string) (names []asn1.RawValue) {
		for _, u := range urls {
			names = append(names, asn1.RawValue{Class: 2, Tag: 6, Bytes: []byte(u)})
		}
		return names
	}

	rapid.Check(t, func(t *rapid.T) {
		signer := rapid.SampledFrom(signers).Draw(t, "signer")
		a, err := der.SignatureAlgorithmFor(signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		c := der.CRLConfig{
			SignatureAlgorithm: a, Issuer: issuerName,
			AuthorityKeyID: rapid.SliceOfN(rapid.Byte(), 1, 32).Draw(t, "aki"),
			Number:         new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 19).Draw(t, "number")),
			ThisUpdate:     validTimes.Draw(t, "thisUpdate"),
		}
		c.NextUpdate = c.ThisUpdate.Add(time.Duration(rapid.IntRange(1, 1e9).Draw(t, "period")) * time.Second)
		if c.NextUpdate.Year() > 9999 {
			c.NextUpdate, c.ThisUpdate = c.ThisUpdate, c.ThisUpdate.Add(-time.Second)
		}
		list := x509.RevocationList{Number: c.Number, ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate}
		extra := func(id int, critical bool, value []byte) {
			list.ExtraExtensions = append(list.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, id}, Critical: critical, Value: value})
		}
		if rapid.Bool().Draw(t, "delta") {
			c.DeltaBase = new(big.Int).Rsh(c.Number, 3)
			extra(27, true, marshal(c.DeltaBase, ""))
		}
		if rapid.Bool().Draw(t, "partitioned") {
			p := &der.IssuingDistributionPoint{
				URLs:                  rapid.SliceOfN(urls, 0, 3).Draw(t, "idp"),
				OnlyContainsUserCerts: rapid.Bool().Draw(t, "user"),
				OnlySomeReasons:       der.ReasonFlags(rapid.Uint16Range(0, 255).Draw(t, "reasons") << 1),
			}
			p.OnlyContainsCACerts = !p.OnlyContainsUserCerts
			c.IssuingDistributionPoint = p
			w := issuingDistributionPoint{
				DistributionPoint:     distributionPointName{uris(p.URLs)},
				OnlyContainsUserCerts: p.OnlyContainsUserCerts, OnlyContainsCACerts: p.OnlyContainsCACerts,
			}
			for i := 1; i < 9; i++ {
				if p.OnlySomeReasons&(1<<i) != 0 {
					octets := make([]byte, i/8+1)
					copy(octets, w.OnlySomeReasons.Bytes)
					octets[i/8] |= 0x80 >> (i % 8)
					w.OnlySomeReasons = asn1.BitString{Bytes: octets, BitLength: i + 1}
				}
			}
			extra(28, true, marshal(w, ""))
		}
		if c.DeltaBase == nil && rapid.Bool().Draw(t, "freshest") {
			c.FreshestCRL = rapid.SliceOfN(urls, 1, 2).Draw(t, "freshestCRL")
			extra(46, false, marshal([]distributionPoint{{distributionPointName{uris(c.FreshestCRL)}}}, ""))
		}

		var chunks [][]byte
		for range rapid.IntRange(0, 20).Draw(t, "entries") {
			e := der.CRLEntry{
				SerialNumber:   serials.Draw(t, "serial"),
				RevocationDate: validTimes.Draw(t, "revocationDate"),
				Reason:         rapid.SampledFrom([]int{0, 1, 2, 3, 4, 5, 6, 8, 9, 10}).Draw(t, "reason"),
			}
			if e.SerialNumber[0] >= 0x80 {
				e.SerialNumber = append([]byte{0}, e.SerialNumber...)
			}
			x := x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(e.SerialNumber), RevocationTime: e.RevocationDate, ReasonCode: e.Reason}
			if rapid.Bool().Draw(t, "invalidity") {
				e.InvalidityDate = validTimes.Draw(t, "invalidityDate")
				x.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: marshal(e.InvalidityDate, "generalized")}}
			}
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x)
			raw, err := der.AppendCRLEntry(nil, &e)
			if err != nil {
				t.Fatal(err)
			}
			if len(chunks) > 0 && rapid.Bool().Draw(t, "join") {
				chunks[len(chunks)-1] = append(chunks[len(chunks)-1], raw...)
			} else {
				chunks = append(chunks, raw)
			}
		}

		var out bytes.Buffer
		if err := der.WriteCRL(&out, &c, der.EncodedEntries(chunks...), signer); err != nil {
			t.Fatal(err)
		}
		got, err := x509.ParseRevocationList(out.Bytes())
		if err != nil {
			t.Fatalf("ours does not parse: %v\n%x", err, out.Bytes())
		}
		issuer := &x509.Certificate{
			RawSubject: issuerName, SubjectKeyId: c.AuthorityKeyID, KeyUsage: x509.KeyUsageCRLSign,
			BasicConstraintsValid: true, IsCA: true, Version: 3,
			PublicKey: signer.Public(), PublicKeyAlgorithm: publicKeyAlgorithm(signer),
		}
		if err := got.CheckSignatureFrom(issuer); err != nil {
			t.Fatal(err)
		}
		raw, err := x509.CreateRevocationList(rand.Reader, &list, issuer, signer)
		if err != nil {
			t.Fatal(err)
		}
		want, err := x509.ParseRevocationList(raw)
		if err != nil {
			t.Fatal(err)
		}
		byID := func(a, b pkix.Extension) int { return strings.Compare(a.Id.String(), b.Id.String()) }
		for _, l := range []*x509.RevocationList{got, want} {
			l.Raw, l.RawTBSRevocationList, l.Signature = nil, nil, nil
			slices.SortFunc(l.Extensions, byID)
			for i := range l.RevokedCertificateEntries {
				l.RevokedCertificateEntries[i].Raw = nil
				slices.SortFunc(l.RevokedCertificateEntries[i].Extensions, byID)
			}
			//lint:ignore SA1019 Go's older copy of the same is compared too
			for i := range l.RevokedCertificates {
				//lint:ignore SA1019 as above
				slices.SortFunc(l.RevokedCertificates[i].Extensions, byID)
			}
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })); diff != "" {
			t.Fatalf("crypto/x509 (-) and ours (+):\n%s", diff)
		}
	})
}

func sampleCRL(t testing.TB) []byte {
	signer := p256(t)
	c := crlConfig(t, signer)
	c.FreshestCRL = []string{"http://ca.example.com/crl/delta.crl"}
	c.IssuingDistributionPoint = &der.IssuingDistributionPoint{
		URLs:                  []string{"http://ca.example.com/crl/1/17.crl", "http://old.example.com/crl/17.crl"},
		OnlyContainsUserCerts: true,
	}
	return writeCRL(t, &c, der.EncodedEntries(
		entry(t, der.CRLEntry{SerialNumber: []byte{0x41, 1}, RevocationDate: start.Add(-time.Hour)}),
		entry(t, der.CRLEntry{SerialNumber: []byte{0x41, 2}, RevocationDate: start.Add(-time.Minute), Reason: 1, InvalidityDate: start.Add(-48 * time.Hour)}),
	), signer)
}

func TestCRLZlint(t *testing.T) {
	signer := p256(t)
	full := crlConfig(t, signer)
	for file, raw := range map[string][]byte{"entries": sampleCRL(t), "empty": writeCRL(t, &full, der.CRLEntries{}, signer)} {
		t.Run(file, func(t *testing.T) {
			list, err := zx509.ParseRevocationList(raw)
			if err != nil {
				t.Fatal(err)
			}
			reportLints(t, zlint.LintRevocationListEx(list, rfcLints(t)))
		})
	}
}

func TestCRLOpenSSL(t *testing.T) {
	out := openssl(t, sampleCRL(t), "crl", "-inform", "DER", "-in", "INPUT", "-noout", "-text")
	for _, want := range []string{
		"Version 2", "Key Compromise", "Invalidity Date", "X509v3 Issuing Distribution Point: critical",
		"Only User Certificates", "1793534400", "X509v3 Freshest CRL",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl does not print %q:\n%s", want, out)
		}
	}
}

func TestEntryVector(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := hex.EncodeToString(entry(t, der.CRLEntry{SerialNumber: []byte{1}, RevocationDate: at, Reason: 6, InvalidityDate: at}))
	want := "303a" + "020101" + "170d" + hex.EncodeToString([]byte("260102030405Z")) +
		"3026" + "300a0603551d1504030a0106" +
		"30180603551d180411" + "180f" + hex.EncodeToString([]byte("20260102030405Z"))
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCRLRefuses(t *testing.T) {
	for name, e := range map[string]der.CRLEntry{
		"no serial":       {RevocationDate: start},
		"no date":         {SerialNumber: []byte{1}},
		"reason 7":        {SerialNumber: []byte{1}, RevocationDate: start, Reason: 7},
		"reason 11":       {SerialNumber: []byte{1}, RevocationDate: start, Reason: 11},
		"negative reason": {SerialNumber: []byte{1}, RevocationDate: start, Reason: -1},
		"fraction":        {SerialNumber: []byte{1}, RevocationDate: start.Add(1)},
		"invalidity":      {SerialNumber: []byte{1}, RevocationDate: start, InvalidityDate: start.Add(1)},
	} {
		_, err := der.AppendCRLEntry(nil, &e)
		wantValueError(t, err, name)
	}

	signer := p256(t)
	for name, change := range map[string]func(*der.CRLConfig){
		"no algorithm":    func(c *der.CRLConfig) { c.SignatureAlgorithm = nil },
		"no issuer":       func(c *der.CRLConfig) { c.Issuer = nil },
		"no AKI":          func(c *der.CRLConfig) { c.AuthorityKeyID = nil },
		"no number":       func(c *der.CRLConfig) { c.Number = nil },
		"negative number": func(c *der.CRLConfig) { c.Number = big.NewInt(-1) },
		"no nextUpdate":   func(c *der.CRLConfig) { c.NextUpdate = time.Time{} },
		"equal updates":   func(c *der.CRLConfig) { c.NextUpdate = c.ThisUpdate },
		"fraction":        func(c *der.CRLConfig) { c.NextUpdate = c.NextUpdate.Add(1) },
		"empty IDP":       func(c *der.CRLConfig) { c.IssuingDistributionPoint = &der.IssuingDistributionPoint{} },
		"IDP with both": func(c *der.CRLConfig) {
			c.IssuingDistributionPoint = &der.IssuingDistributionPoint{OnlyContainsUserCerts: true, OnlyContainsCACerts: true}
		},
		"IDP reason 0": func(c *der.CRLConfig) { c.IssuingDistributionPoint = &der.IssuingDistributionPoint{OnlySomeReasons: 1} },
		"IDP reason 9": func(c *der.CRLConfig) {
			c.IssuingDistributionPoint = &der.IssuingDistributionPoint{OnlySomeReasons: 1 << 9}
		},
		"IDP address": func(c *der.CRLConfig) {
			c.IssuingDistributionPoint = &der.IssuingDistributionPoint{URLs: []string{"x"}}
		},
		"base above number": func(c *der.CRLConfig) { c.DeltaBase = new(big.Int).Add(c.Number, big.NewInt(1)) },
		"freshest in delta": func(c *der.CRLConfig) { c.DeltaBase, c.FreshestCRL = c.Number, []string{"http://a/b"} },
		"other algorithm":   func(c *der.CRLConfig) { c.SignatureAlgorithm = algorithmOf(t, ed25519Key()) },
	} {
		c := crlConfig(t, signer)
		change(&c)
		var out bytes.Buffer
		wantValueError(t, der.WriteCRL(&out, &c, der.CRLEntries{}, signer), name)
		if out.Len() != 0 {
			t.Errorf("%s: %d octets were written", name, out.Len())
		}
	}

	c := crlConfig(t, signer)
	good := entry(t, der.CRLEntry{SerialNumber: []byte{1}, RevocationDate: start})
	short := der.EncodedEntries(good, good)
	short.Size -= 1
	long := der.EncodedEntries(good)
	long.Size += 10
	for name, entries := range map[string]der.CRLEntries{
		"too many octets": short, "too few octets": long, "no source": {Size: 3}, "negative": {Size: -1},
		"cut entry": der.EncodedEntries(good[:10], good[10:]), "no entry": der.EncodedEntries([]byte{0x30, 0}),
	} {
		var out bytes.Buffer
		wantValueError(t, der.WriteCRL(&out, &c, entries, signer), name)
		if out.Len() != 0 {
			t.Errorf("%s: %d octets were written", name, out.Len())
		}
	}
}

type failingWriter struct{ room int }

var errFull = errors.New("full")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.room -= len(p); w.room < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestCRLPassesErrorsOn(t *testing.T) {
	good := entry(t, der.CRLEntry{SerialNumber: []byte{1}, RevocationDate: start})
	chunk := bytes.Repeat(good, 5000)
	for _, signer := range []crypto.Signer{p256(t), ed25519Key()} {
		c := crlConfig(t, signer)
		for _, room := range []int{0, 10, 60000} {
			if err := der.WriteCRL(&failingWriter{room}, &c, der.EncodedEntries(chunk), signer); !errors.Is(err, errFull) {
				t.Errorf("%T, writer of %d octets: got %v, want %v", signer, room, err, errFull)
			}
		}
		broken := der.CRLEntries{Size: int64(len(good)), All: func(yield func([]byte, error) bool) { yield(nil, io.ErrUnexpectedEOF) }}
		if err := der.WriteCRL(io.Discard, &c, broken, signer); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%T, broken source: got %v, want %v", signer, err, io.ErrUnexpectedEOF)
		}
	}

	// A source whose second run differs, in content and in length.
	c := crlConfig(t, p256(t))
	other := entry(t, der.CRLEntry{SerialNumber: []byte{2}, RevocationDate: start})
	for _, second := range [][]byte{other, {}, append(slices.Clone(good), good...)} {
		runs := 0
		changing := der.CRLEntries{Size: int64(len(good)), All: func(yield func([]byte, error) bool) {
			runs++
			if runs == 1 {
				yield(good, nil)
			} else {
				yield(second, nil)
			}
		}}
		if err := der.WriteCRL(io.Discard, &c, changing, p256(t)); err == nil || !strings.Contains(err.Error(), "changed") {
			t.Errorf("changing source: got %v, want an error that it changed", err)
		}
	}
}

// TestCRLMemory writes 200,000 entries from one reused chunk and looks at what
// was allocated on the way.
func TestCRLMemory(t *testing.T) {
	signer := p256(t)
	c := crlConfig(t, signer)
	chunk := bytes.Repeat(entry(t, der.CRLEntry{SerialNumber: bytes.Repeat([]byte{0x41}, 16), RevocationDate: start, Reason: 1}), 1000)
	entries := der.CRLEntries{Size: 200 * int64(len(chunk)), All: func(yield func([]byte, error) bool) {
		for range 200 {
			if !yield(chunk, nil) {
				return
			}
		}
	}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := der.WriteCRL(io.Discard, &c, entries, signer); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10 {
		t.Errorf("a CRL of %d octets allocated %d, want at most 256 KiB", entries.Size, n)
	}
}

func FuzzCRL(f *testing.F) {
	f.Add([]byte{1}, int64(1793534400), 1, int64(1793534400), []byte{1}, []byte(nil), "http://a/b.crl", uint16(2), true)
	f.Add([]byte{0x80}, int64(-1<<62), 7, int64(1<<62), []byte{}, []byte{2}, "", uint16(1), false)
	signer := ed25519Key() // no randomness, so that coverage does not depend on it
	f.Fuzz(func(t *testing.T, serial []byte, revoked int64, reason int, invalid int64, number, base []byte, url string, reasons uint16, user bool) {
		e := der.CRLEntry{SerialNumber: serial, RevocationDate: time.Unix(revoked, 0), Reason: reason, InvalidityDate: time.Unix(invalid, 0)}
		raw, err := der.AppendCRLEntry(nil, &e)
		if refused(t, err) {
			return
		}
		c := crlConfig(t, signer)
		c.Number = new(big.Int).SetBytes(number)
		if len(base) > 0 {
			c.DeltaBase = new(big.Int).SetBytes(base)
		}
		c.IssuingDistributionPoint = &der.IssuingDistributionPoint{OnlyContainsUserCerts: user, OnlyContainsCACerts: !user, OnlySomeReasons: der.ReasonFlags(reasons)}
		if url != "" {
			c.IssuingDistributionPoint.URLs = []string{url}
		}
		var out bytes.Buffer
		if refused(t, der.WriteCRL(&out, &c, der.EncodedEntries(raw), signer)) {
			return
		}
		list, err := x509.ParseRevocationList(out.Bytes())
		if err != nil {
			t.Fatalf("accepted, but does not parse: %v\n%x", err, out.Bytes())
		}
		got := list.RevokedCertificateEntries[0]
		if got.SerialNumber.Cmp(new(big.Int).SetBytes(serial)) != 0 || got.ReasonCode != reason || got.RevocationTime.Unix() != revoked || list.Number.Cmp(c.Number) != 0 {
			t.Fatalf("reads differently: %x", out.Bytes())
		}
	})
}

const million = 1_000_000

func benchSerial(i int) []byte {
	serial := bytes.Repeat([]byte{0x41}, 16)
	binary.BigEndian.PutUint64(serial[8:], uint64(i))
	return serial
}

// TestCRLOfAMillion has Go and OpenSSL read a list of a million, fewer under the race detector.
func TestCRLOfAMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some hundred megabytes")
	}
	signer := p256(t)
	c := crlConfig(t, signer)
	var encoded []byte
	for i := range many {
		encoded, _ = der.AppendCRLEntry(encoded, &der.CRLEntry{SerialNumber: benchSerial(i), RevocationDate: start, Reason: 1})
	}
	var out bytes.Buffer
	if err := der.WriteCRL(&out, &c, der.EncodedEntries(encoded), signer); err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(list.RawTBSRevocationList)
	if !ecdsa.VerifyASN1(signer.Public().(*ecdsa.PublicKey), digest[:], list.Signature) {
		t.Error("the signature is wrong")
	}
	if n := len(list.RevokedCertificateEntries); n != many {
		t.Fatalf("Go reads %d entries, want %d", n, many)
	}
	for i, e := range list.RevokedCertificateEntries {
		if e.ReasonCode != 1 || !e.RevocationTime.Equal(start) || !bytes.Equal(e.SerialNumber.Bytes(), benchSerial(i)) {
			t.Fatalf("entry %d is %+v", i, e)
		}
	}
	if got := openssl(t, out.Bytes(), "crl", "-inform", "DER", "-in", "INPUT", "-noout", "-crlnumber"); !strings.Contains(got, "crlNumber") {
		t.Errorf("openssl says %q", got)
	}
}

// BenchmarkCRL1M streams a million entries that are kept encoded, in chunks of
// a thousand, with a reason each.
func BenchmarkCRL1M(b *testing.B) {
	signer := p256(b)
	c := crlConfig(b, signer)
	var chunks [][]byte
	for i := 0; i < million; i += 1000 {
		var chunk []byte
		for j := i; j < i+1000; j++ {
			chunk, _ = der.AppendCRLEntry(chunk, &der.CRLEntry{SerialNumber: benchSerial(j), RevocationDate: start, Reason: 1})
		}
		chunks = append(chunks, chunk)
	}
	entries := der.EncodedEntries(chunks...)
	b.SetBytes(entries.Size)
	b.ReportAllocs()
	for b.Loop() {
		if err := der.WriteCRL(io.Discard, &c, entries, signer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCRL1MEncode encodes the entries each time, one by one, in both runs.
func BenchmarkCRL1MEncode(b *testing.B) {
	signer := p256(b)
	c := crlConfig(b, signer)
	e := der.CRLEntry{SerialNumber: benchSerial(0), RevocationDate: start, Reason: 1}
	one, err := der.AppendCRLEntry(nil, &e)
	if err != nil {
		b.Fatal(err)
	}
	buffer := make([]byte, 0, 128)
	entries := der.CRLEntries{Size: million * int64(len(one)), All: func(yield func([]byte, error) bool) {
		for i := range million {
			binary.BigEndian.PutUint64(e.SerialNumber[8:], uint64(i))
			if !yield(der.AppendCRLEntry(buffer, &e)) {
				return
			}
		}
	}}
	b.ReportAllocs()
	for b.Loop() {
		if err := der.WriteCRL(io.Discard, &c, entries, signer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCRL1MX509(b *testing.B) {
	signer := p256(b)
	list := x509.RevocationList{Number: big.NewInt(1), ThisUpdate: start, NextUpdate: start.AddDate(0, 0, 7)}
	for i := range million {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: new(big.Int).SetBytes(benchSerial(i)), RevocationTime: start, ReasonCode: 1,
		})
	}
	issuer := &x509.Certificate{RawSubject: name(b, cn("Example CA")), SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign, PublicKey: signer.Public()}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x509.CreateRevocationList(rand.Reader, &list, issuer, signer); err != nil {
			b.Fatal(err)
		}
	}
}
