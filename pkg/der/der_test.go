package der_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/der"
)

// Test keys. The elliptic ones are fixed, so that what they sign without
// randomness is the same in every run.

func fixedKey(t testing.TB, curve elliptic.Curve, seed byte) *ecdsa.PrivateKey {
	t.Helper()
	scalar := bytes.Repeat([]byte{seed}, (curve.Params().BitSize+7)/8)
	scalar[0] = 0
	key, err := ecdsa.ParseRawPrivateKey(curve, scalar)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func p256(t testing.TB) *ecdsa.PrivateKey { return fixedKey(t, elliptic.P256(), 1) }

func ed25519Key() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func spkiOf(t testing.TB, pub crypto.PublicKey) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

func algorithmOf(t testing.TB, signer crypto.Signer) *der.SignatureAlgorithm {
	t.Helper()
	a, err := der.SignatureAlgorithmFor(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// name is must(AppendName) of one attribute per RDN.
func name(t testing.TB, attributes ...der.Attribute) []byte {
	t.Helper()
	var rdns [][]der.Attribute
	for _, a := range attributes {
		rdns = append(rdns, []der.Attribute{a})
	}
	raw, err := der.AppendName(nil, rdns)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func cn(s string) der.Attribute {
	return der.Attribute{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: s}
}

func generalNames(t testing.TB, names ...der.GeneralName) []byte {
	t.Helper()
	raw, err := der.AppendGeneralNames(nil, names)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sign finishes a certificate or fails.
func sign(t testing.TB, template *der.CertificateTemplate, f *der.CertificateFields, signer crypto.Signer) []byte {
	t.Helper()
	tbs, err := template.AppendTBS(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	// Without randomness ECDSA is deterministic (RFC 6979).
	signature, err := template.SignatureAlgorithm().Sign(nil, signer, tbs)
	if err != nil {
		t.Fatal(err)
	}
	return der.AppendSigned(nil, tbs, template.SignatureAlgorithm(), signature)
}

func openssl(t *testing.T, input []byte, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	file := filepath.Join(t.TempDir(), "input.der")
	if err := os.WriteFile(file, input, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, a := range args {
		if a == "INPUT" {
			args[i] = file
		}
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func wantValueError(t *testing.T, err error, what string) {
	t.Helper()
	var ve *der.ValueError
	if !errors.As(err, &ve) {
		t.Errorf("%s: got error %v, want a *ValueError", what, err)
	}
}

func TestPrimitivesAgainstASN1(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := func(what string, got []byte, value any, params string) {
			w, err := asn1.MarshalWithParams(value, params)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if !bytes.Equal(got, w) {
				t.Fatalf("%s: got %x, want %x for %v", what, got, w, value)
			}
		}
		v := rapid.Int64().Draw(t, "int")
		want("INTEGER", der.AppendInt(nil, v), v, "")

		number := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 19).Draw(t, "big"))
		got, err := der.AppendBigInt(nil, number)
		if err != nil {
			t.Fatal(err)
		}
		want("big INTEGER", got, number, "")

		octets := rapid.SliceOfN(rapid.Byte(), 0, 70000).Draw(t, "octets")
		want("OCTET STRING", der.AppendOctetString(nil, octets), octets, "")
		want("BIT STRING", der.AppendBitString(nil, octets), asn1.BitString{Bytes: octets, BitLength: 8 * len(octets)}, "")
		if n := len(der.AppendOctetString(nil, octets)); n != der.SizeTLV(len(octets)) {
			t.Fatalf("SizeTLV(%d): got %d, want %d", len(octets), der.SizeTLV(len(octets)), n)
		}

		oid := asn1.ObjectIdentifier{rapid.IntRange(0, 2).Draw(t, "arc 1"), rapid.IntRange(0, 39).Draw(t, "arc 2")}
		oid = append(oid, rapid.SliceOfN(rapid.IntRange(0, math.MaxInt32), 1, 12).Draw(t, "arcs")...)
		if got, err = der.AppendOID(nil, oid); err != nil {
			t.Fatal(err)
		}
		want("OID", got, oid, "")

		text := rapid.String().Draw(t, "text")
		if got, err = der.AppendUTF8String(nil, text); err != nil {
			t.Fatal(err)
		}
		want("UTF8String", got, text, "utf8")
		ascii := rapid.StringMatching(`[A-Za-z0-9 '()+,./:=?-]*`).Draw(t, "printable")
		if got, err = der.AppendPrintableString(nil, ascii); err != nil {
			t.Fatal(err)
		}
		want("PrintableString", got, ascii, "printable")
		if got, err = der.AppendIA5String(nil, ascii); err != nil {
			t.Fatal(err)
		}
		want("IA5String", got, ascii, "ia5")

		// From 1950 to the last second of 9999.
		at := time.Unix(rapid.Int64Range(-631152000, 253402300799).Draw(t, "time"), 0).
			In(time.FixedZone("east", rapid.IntRange(-12, 14).Draw(t, "zone")*3600))
		if got, err = der.AppendTime(nil, at); err != nil {
			t.Fatal(err)
		}
		want("Time", got, at.UTC(), "")
		if got, err = der.AppendGeneralizedTime(nil, at); err != nil {
			t.Fatal(err)
		}
		want("GeneralizedTime", got, at.UTC(), "generalized")
	})
}

func TestVectors(t *testing.T) {
	instant := func(s string) []byte {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := der.AppendTime(nil, at)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, test := range []struct {
		name, want string
		got        []byte
	}{
		{"last UTCTime", "170d" + hex.EncodeToString([]byte("491231235959Z")), instant("2049-12-31T23:59:59Z")},
		{"first GeneralizedTime", "180f" + hex.EncodeToString([]byte("20500101000000Z")), instant("2050-01-01T00:00:00Z")},
		{"no expiration date", "180f" + hex.EncodeToString([]byte("99991231235959Z")), instant("9999-12-31T23:59:59Z")},
		{"no bits", "030100", der.AppendNamedBits(nil, 0)},
		{"keyCertSign, cRLSign", "03020106", der.AppendNamedBits(nil, uint32(x509.KeyUsageCertSign|x509.KeyUsageCRLSign))},
		{"decipherOnly", "0303070080", der.AppendNamedBits(nil, uint32(x509.KeyUsageDecipherOnly))},
		{"length 127", "7f", der.AppendLength(nil, 127)},
		{"length 128", "8180", der.AppendLength(nil, 128)},
		{"length 256", "820100", der.AppendLength(nil, 256)},
		{"length 65536", "83010000", der.AppendLength(nil, 65536)},
		{"length 2^24", "8401000000", der.AppendLength(nil, 1<<24)},
	} {
		if got := hex.EncodeToString(test.got); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestPrimitivesRefuse(t *testing.T) {
	var err error
	for _, content := range [][]byte{nil, {}, {0}, {0, 1}, {0x80}, {0, 0}, bytes.Repeat([]byte{1}, 21)} {
		_, err = der.AppendSerialNumber(nil, content)
		wantValueError(t, err, "serial "+hex.EncodeToString(content))
	}
	for _, oid := range []asn1.ObjectIdentifier{nil, {1}, {3, 1}, {1, 40}, {-1, 2}, {1, -2}, {1, 2, -3}, {2, math.MaxInt}, {1, 2, math.MaxInt}} {
		_, err = der.AppendOID(nil, oid)
		wantValueError(t, err, "OID "+oid.String())
	}
	for _, number := range []*big.Int{nil, big.NewInt(-1), new(big.Int).Lsh(big.NewInt(1), 159)} {
		_, err = der.AppendBigInt(nil, number)
		wantValueError(t, err, "INTEGER")
	}
	for _, at := range []time.Time{
		{},
		time.Date(1949, 12, 31, 23, 59, 59, 0, time.UTC),
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2026, 1, 1, 0, 0, 0, 1, time.UTC),
		time.Unix(math.MaxInt64, 0), time.Unix(math.MinInt64, 0),
	} {
		_, err = der.AppendTime(nil, at)
		wantValueError(t, err, "Time "+at.String())
	}
	_, err = der.AppendGeneralizedTime(nil, time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC))
	wantValueError(t, err, "year -1")
	_, err = der.AppendUTF8String(nil, "\xff")
	wantValueError(t, err, "UTF8String")
	_, err = der.AppendPrintableString(nil, "a*b")
	wantValueError(t, err, "PrintableString")
	_, err = der.AppendIA5String(nil, "ä")
	wantValueError(t, err, "IA5String")
}

func TestSignatureAlgorithms(t *testing.T) {
	for _, test := range []struct {
		name   string
		signer crypto.Signer
		want   x509.SignatureAlgorithm
	}{
		{"RSA", rsaKey(), x509.SHA256WithRSA},
		{"P-256", fixedKey(t, elliptic.P256(), 1), x509.ECDSAWithSHA256},
		{"P-384", fixedKey(t, elliptic.P384(), 1), x509.ECDSAWithSHA384},
		{"P-521", fixedKey(t, elliptic.P521(), 1), x509.ECDSAWithSHA512},
		{"Ed25519", ed25519Key(), x509.PureEd25519},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := algorithmOf(t, test.signer)
			if a.String() != test.want.String() {
				t.Errorf("String: got %s, want %s", a, test.want)
			}
			template, fields := serverTemplate(t, test.signer)
			certificate, err := x509.ParseCertificate(sign(t, template, fields, test.signer))
			if err != nil {
				t.Fatal(err)
			}
			if certificate.SignatureAlgorithm != test.want {
				t.Errorf("parsed algorithm: got %s, want %s", certificate.SignatureAlgorithm, test.want)
			}
			parent := &x509.Certificate{PublicKey: test.signer.Public(), PublicKeyAlgorithm: publicKeyAlgorithm(test.signer)}
			if err := parent.CheckSignature(certificate.SignatureAlgorithm, certificate.RawTBSCertificate, certificate.Signature); err != nil {
				t.Error(err)
			}
		})
	}
	for _, pub := range []crypto.PublicKey{nil, (*ecdsa.PublicKey)(nil), "key", &fixedKey(t, elliptic.P224(), 1).PublicKey} {
		_, err := der.SignatureAlgorithmFor(pub)
		wantValueError(t, err, "public key")
	}
	_, err := algorithmOf(t, p256(t)).Sign(rand.Reader, ed25519Key(), []byte("x"))
	wantValueError(t, err, "signer of another algorithm")
	_, err = algorithmOf(t, p256(t)).Sign(rand.Reader, nil, []byte("x"))
	wantValueError(t, err, "no signer")
}

func publicKeyAlgorithm(signer crypto.Signer) x509.PublicKeyAlgorithm {
	switch signer.(type) {
	case *rsa.PrivateKey:
		return x509.RSA
	case *ecdsa.PrivateKey:
		return x509.ECDSA
	}
	return x509.Ed25519
}

func TestSubjectKeyID(t *testing.T) {
	key := p256(t)
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(point)
	if got := der.SubjectKeyID(spkiOf(t, key.Public())); !bytes.Equal(got, want[:20]) {
		t.Errorf("got %x, want %x", got, want[:20])
	}
	for _, bad := range [][]byte{nil, {0x30, 0}, {0x30, 2, 0x30, 0}, append(spkiOf(t, key.Public()), 0)} {
		if got := der.SubjectKeyID(bad); got != nil {
			t.Errorf("SubjectKeyID(%x): got %x, want nil", bad, got)
		}
	}
}
