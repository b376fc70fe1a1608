package csr_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseOpenSSL(t *testing.T) {
	wantSubject := []der.Attribute{
		{Type: pki.OIDCountry, Value: "DE"},
		{Type: pki.OIDOrganization, Value: "Müller GmbH"},
		{Type: pki.OIDOrganizationalUnit, Value: "Dev"},
		{Type: pki.OIDOrganizationalUnit, Value: "Ops"},
		{Type: pki.OIDCommonName, Value: "host.example.com"},
	}
	wantSANs := []der.GeneralName{
		der.DNSName("host.example.com"),
		der.DNSName("www.example.com"),
		{Tag: der.TagIPAddress, Raw: []byte{192, 0, 2, 7}},
		{Tag: der.TagIPAddress, Raw: []byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}},
		der.URI("spiffe://example.com/a"),
		der.EmailAddress("ops@example.com"),
		der.UPN("ops@corp.example"),
	}
	tests := []struct {
		file string
		key  keys.Algorithm
		sig  x509.SignatureAlgorithm
	}{
		{"p256.pem", keys.P256, x509.ECDSAWithSHA256},
		{"p256.der", keys.P256, x509.ECDSAWithSHA256},
		{"newhdr-text.pem", keys.P256, x509.ECDSAWithSHA256},
		{"rsa.pem", keys.RSA2048, x509.SHA256WithRSA},
		{"ed.pem", keys.Ed25519, x509.PureEd25519},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			r, err := csr.Parse(read(t, tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wantSubject, r.Subject); diff != "" {
				t.Errorf("Subject (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(wantSANs, r.SANs); diff != "" {
				t.Errorf("SANs (-want +got):\n%s", diff)
			}
			if r.KeyAlgorithm != tt.key || r.SignatureAlgorithm != tt.sig {
				t.Errorf("key %v, signature %v; want %v, %v", r.KeyAlgorithm, r.SignatureAlgorithm, tt.key, tt.sig)
			}
			if want := x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment; r.KeyUsage != want {
				t.Errorf("KeyUsage = %b, want %b", r.KeyUsage, want)
			}
			if diff := cmp.Diff([]asn1.ObjectIdentifier{pki.OIDServerAuth, pki.OIDClientAuth}, r.ExtKeyUsage); diff != "" {
				t.Errorf("ExtKeyUsage (-want +got):\n%s", diff)
			}
			if r.IsCA || len(r.Extensions) != 4 {
				t.Errorf("IsCA = %v, Extensions = %v", r.IsCA, r.Extensions)
			}
			if got := r.ChallengePassword.Reveal(); got != "correct horse" {
				t.Errorf("ChallengePassword = %q", got)
			}
			// The standard library is the second reader.
			std, err := x509.ParseCertificateRequest(r.DER)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(std.RawSubjectPublicKeyInfo, r.SPKI) || r.SPKIHash != sha256.Sum256(r.SPKI) {
				t.Errorf("SPKI = %x, want %x", r.SPKI, std.RawSubjectPublicKeyInfo)
			}
			if !r.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(std.PublicKey) {
				t.Errorf("PublicKey = %v, want %v", r.PublicKey, std.PublicKey)
			}
		})
	}
}

func TestParseOpenSSLRefusals(t *testing.T) {
	old := csr.Parser{AllowSHA1: true}
	tests := []struct {
		file   string
		parser csr.Parser
		kind   fault.Kind // Internal: accepted
		detail string
	}{
		{"cn-only.pem", csr.Parser{}, fault.Internal, ""},
		{"rsa-pss.pem", csr.Parser{}, fault.Internal, ""},
		{"rsa-sha1.pem", csr.Parser{}, fault.BadCSR, "SHA1-RSA"},
		{"rsa-sha1.pem", old, fault.Internal, ""},
		{"rsa-md5.pem", old, fault.BadCSR, "MD5-RSA"},
		{"rsa1024.pem", old, fault.BadPublicKey, "1024 bits"},
		{"secp256k1.pem", old, fault.BadPublicKey, "cannot be read"},
		{"dsa.pem", old, fault.BadPublicKey, "not RSA, ECDSA or Ed25519"},
	}
	for _, tt := range tests {
		r, err := tt.parser.Parse(read(t, tt.file))
		if tt.kind == fault.Internal {
			if err != nil || len(r.Subject) != 1 {
				t.Errorf("%s, %+v: %v, %v; want it accepted", tt.file, tt.parser, r, err)
			}
			continue
		}
		wantFault(t, tt.file, err, tt.kind, tt.detail)
	}
}

func wantFault(t *testing.T, name string, err error, kind fault.Kind, detail string) {
	t.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Kind != kind || !strings.Contains(e.Detail, detail) {
		t.Errorf("%s: %v; want %v with %q", name, err, kind, detail)
		return
	}
	if len(e.Detail) > 300 {
		t.Errorf("%s: a detail of %d octets", name, len(e.Detail))
	}
}

// request is PKCS #10 in the making; every part can be spoilt.
type request struct {
	version    int64
	subject    []byte // content of the Name
	spki       []byte
	attributes []byte // content of [0]
	absent     bool   // no [0] at all
	inTBS      []byte // after the attributes
	inRequest  []byte // after the signature
	algorithm  []byte // content of the AlgorithmIdentifier
	flip       bool   // spoil the signature
}

var signer = func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}()

func tlv(tag byte, parts ...[]byte) []byte { return der.AppendTLV(nil, tag, bytes.Join(parts, nil)) }

func oid(id asn1.ObjectIdentifier) []byte {
	b, err := der.AppendOID(nil, id)
	if err != nil {
		panic(err)
	}
	return b
}

func rdn(id asn1.ObjectIdentifier, tag byte, value string) []byte {
	return tlv(0x31, tlv(0x30, oid(id), tlv(tag, []byte(value))))
}

func attribute(id asn1.ObjectIdentifier, values ...[]byte) []byte {
	return tlv(0x30, oid(id), tlv(0x31, values...))
}

func extension(id asn1.ObjectIdentifier, value []byte) []byte {
	return tlv(0x30, oid(id), tlv(0x04, value))
}

func extensionRequest(extensions ...[]byte) []byte {
	return attribute(pki.OIDExtensionRequest, tlv(0x30, extensions...))
}

func sans(names ...[]byte) []byte {
	return extensionRequest(extension(pki.OIDSubjectAltName, tlv(0x30, names...)))
}

func newRequest(t testing.TB) *request {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &request{
		subject:   rdn(pki.OIDCommonName, 0x0c, "host.example.com"),
		spki:      spki,
		algorithm: oid(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}),
	}
}

func (r *request) encode(t testing.TB) []byte {
	t.Helper()
	attributes := tlv(0xa0, r.attributes)
	if r.absent {
		attributes = nil
	}
	tbs := tlv(0x30, der.AppendInt(nil, r.version), tlv(0x30, r.subject), r.spki, attributes, r.inTBS)
	digest := sha256.Sum256(tbs)
	sig, err := ecdsa.SignASN1(rand.Reader, signer, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	if r.flip {
		sig[len(sig)-1] ^= 1
	}
	return tlv(0x30, tbs, tlv(0x30, r.algorithm), der.AppendBitString(nil, sig), r.inRequest)
}

// A request of our own making, each time with one thing changed.
// long is the content of an object identifier of n octets.
func long(n int) []byte { return append([]byte{0x2a}, bytes.Repeat([]byte{1}, n-1)...) }

func TestParseStructure(t *testing.T) {
	challenge := func(values ...[]byte) []byte { return attribute(pki.OIDChallengePassword, values...) }
	san := extension(pki.OIDSubjectAltName, tlv(0x30, tlv(0x82, []byte("a.example"))))
	ms := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 14}
	upn := oid(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3})
	basic := func(content ...[]byte) []byte {
		return extensionRequest(extension(asn1.ObjectIdentifier{2, 5, 29, 19}, tlv(0x30, content...)))
	}
	tests := []struct {
		name   string
		change func(*request)
		detail string // empty: accepted
		check  func(*csr.Request) string
	}{
		{"nothing", func(*request) {}, "", nil},
		{"empty subject", func(r *request) { r.subject = nil }, "", nil},
		{"no attributes field", func(r *request) { r.absent = true }, "", nil},
		{"version of a certificate", func(r *request) { r.version = 2 }, "", nil},
		{"version from nowhere", func(r *request) { r.version = 7 }, "version 7", nil},
		{"negative version", func(r *request) { r.version = -1 }, "version -1", nil},
		{"spoilt signature", func(r *request) { r.flip = true }, "not by the key", nil},
		{"octets after the attributes", func(r *request) { r.inTBS = []byte{5, 0} }, "attributes", nil},
		{"octets after the signature", func(r *request) { r.inRequest = []byte{5, 0} }, "signature", nil},
		{"unknown signature algorithm", func(r *request) { r.algorithm = oid(asn1.ObjectIdentifier{1, 2, 3}) }, "unknown algorithm", nil},
		{"ECDSA with parameters", func(r *request) { r.algorithm = append(r.algorithm, 5, 0) }, "unknown algorithm", nil},
		{"two parameters", func(r *request) { r.algorithm = append(r.algorithm, 5, 0, 5, 0) }, "signatureAlgorithm", nil},
		{"an algorithm for another key", func(r *request) { r.algorithm = oid(asn1.ObjectIdentifier{1, 3, 101, 112}) }, "not by the key", nil},

		{"multi-valued RDN", func(r *request) {
			r.subject = append(tlv(0x31, tlv(0x30, oid(pki.OIDCommonName), tlv(0x0c, []byte("a"))), tlv(0x30, oid(pki.OIDSerialNumber), tlv(0x13, []byte("7")))), rdn(pki.OIDOrganization, 0x0c, "o")...)
		}, "", func(r *csr.Request) string {
			return cmp.Diff([]der.Attribute{{Type: pki.OIDCommonName, Value: "a"}, {Type: pki.OIDSerialNumber, Value: "7"}, {Type: pki.OIDOrganization, Value: "o"}}, r.Subject)
		}},
		{"empty RDN", func(r *request) { r.subject = tlv(0x31) }, "subject", nil},
		{"attribute without value", func(r *request) { r.subject = tlv(0x31, tlv(0x30, oid(pki.OIDCommonName))) }, "subject", nil},
		{"attribute with two values", func(r *request) {
			r.subject = tlv(0x31, tlv(0x30, oid(pki.OIDCommonName), tlv(0x0c, []byte("a")), tlv(0x0c, []byte("b"))))
		}, "subject", nil},
		{"65 attributes", func(r *request) {
			r.subject = bytes.Repeat(rdn(pki.OIDOrganizationalUnit, 0x0c, "x"), 65)
		}, "more than 64", nil},
		{"NUL in the common name", func(r *request) { r.subject = rdn(pki.OIDCommonName, 0x0c, "a.example\x00.b") }, "NUL", nil},
		{"NUL in a BMPString", func(r *request) { r.subject = rdn(pki.OIDCommonName, 0x1e, "\x00a\x00\x00") }, "NUL", nil},
		{"bad UTF-8", func(r *request) { r.subject = rdn(pki.OIDCommonName, 0x0c, "a\xff") }, "UTF-8", nil},
		{"PrintableString with an underscore", subject(0x13, "a_b*@"), "", commonName("a_b*@")},
		{"PrintableString beyond ASCII", subject(0x13, "\xe4"), "not ASCII", nil},
		{"T61String in ASCII", subject(0x14, "old"), "", commonName("old")},
		{"T61String beyond ASCII", subject(0x14, "M\xfcller"), "T61String", nil},
		{"BMPString", subject(0x1e, "\x00M\x00\xfc"), "", commonName("Mü")},
		{"BMPString of odd length", subject(0x1e, "\x00M\x00"), "odd length", nil},
		{"BMPString with surrogates", subject(0x1e, "\xd8\x3d\xde\x00"), "surrogates", nil},
		{"UniversalString", subject(0x1c, "\x00\x00\x00M\x00\x01\xf6\x00"), "", commonName("M😀")},
		{"UniversalString of odd length", subject(0x1c, "\x00\x00\x00"), "divisible by four", nil},
		{"UniversalString beyond Unicode", subject(0x1c, "\x00\x11\x00\x00"), "no character", nil},
		{"UniversalString beyond 31 bits", subject(0x1c, "\xff\xff\xff\xff"), "no character", nil},
		{"UniversalString with a surrogate", subject(0x1c, "\x00\x00\xd8\x00"), "no character", nil},
		{"BIT STRING for a name", subject(0x03, "\x00a"), "not a string", nil},

		{"challenge", with(challenge(tlv(0x13, []byte("secret")))), "", func(r *csr.Request) string { return cmp.Diff("secret", r.ChallengePassword.Reveal()) }},
		{"empty challenge", with(challenge(tlv(0x13))), "", func(r *csr.Request) string { return cmp.Diff(true, r.ChallengePassword.Empty()) }},
		{"two challenges", with(challenge(tlv(0x13, []byte("a"))), challenge(tlv(0x13, []byte("b")))), "two challengePassword", nil},
		{"two values of the challenge", with(challenge(tlv(0x13, []byte("a")), tlv(0x13, []byte("b")))), "exactly one value", nil},
		{"challenge without value", with(challenge()), "challengePassword", nil},
		{"challenge that is no string", with(challenge(tlv(0x02, []byte{1}))), "not a string", nil},
		{"two extension requests", with(extensionRequest(san), extensionRequest()), "two extension requests", nil},
		{"Microsoft's beside the standard's", with(extensionRequest(san), attribute(ms, tlv(0x30))), "two extension requests", nil},
		{"Microsoft's alone", with(attribute(ms, tlv(0x30, san))), "", func(r *csr.Request) string {
			return cmp.Diff([]der.GeneralName{der.DNSName("a.example")}, r.SANs)
		}},
		{"two values of the extension request", with(attribute(pki.OIDExtensionRequest, tlv(0x30, san), tlv(0x30))), "exactly one value", nil},
		{"an extension twice", with(extensionRequest(san, san)), "requested twice", nil},
		{"an unknown extension twice", with(extensionRequest(extension(asn1.ObjectIdentifier{1, 2, 3}, nil), extension(asn1.ObjectIdentifier{1, 2, 3}, nil))), "requested twice", nil},
		{"an unknown attribute", with(attribute(asn1.ObjectIdentifier{1, 2, 3}, tlv(0x02, []byte{1}))), "", nil},
		{"an attribute that is no attribute", with(tlv(0x30)), "attributes", nil},
		{"65 attributes of the request", with(bytes.Repeat(attribute(asn1.ObjectIdentifier{1, 2, 3}), 65)), "more than 64", nil},

		{"dNSName beyond ASCII", with(sans(tlv(0x82, []byte("m\xc3\xbcller.example")))), "dNSName", nil},
		{"dNSName with NUL", with(sans(tlv(0x82, []byte("a.example\x00.evil.example")))), "NUL", nil},
		{"rfc822Name with NUL", with(sans(tlv(0x81, []byte("a\x00@b.example")))), "NUL", nil},
		{"iPAddress of five octets", with(sans(tlv(0x87, []byte{1, 2, 3, 4, 5}))), "5 octets", nil},
		{"ediPartyName", with(sans(tlv(0xa5, tlv(0x81, []byte("x"))))), "tag 5", nil},
		{"513 names", with(sans(bytes.Repeat(tlv(0x82, []byte("a")), 513))), "more than 512", nil},
		{"directoryName", with(sans(tlv(0xa4, tlv(0x30, rdn(pki.OIDCommonName, 0x0c, "x"))))), "", func(r *csr.Request) string {
			return cmp.Diff([]der.GeneralName{der.DirectoryName(tlv(0x30, rdn(pki.OIDCommonName, 0x0c, "x")))}, r.SANs)
		}},
		{"directoryName that is none", with(sans(tlv(0xa4, tlv(0x31)))), "directoryName", nil},
		{"registeredID", with(sans(tlv(0x88, []byte{0x2a, 3}))), "", func(r *csr.Request) string {
			return cmp.Diff([]der.GeneralName{{Tag: der.TagRegisteredID, TypeID: asn1.ObjectIdentifier{1, 2, 3}}}, r.SANs)
		}},
		{"registeredID of 65 octets", with(sans(tlv(0x88, long(65)))), "registeredID", nil},
		{"an extension whose name has 30 kB", with(extensionRequest(tlv(0x30, tlv(0x06, long(30_000)), tlv(0x04)))), "the extension request", nil},
		{"an attribute whose name has 30 kB", with(tlv(0x30, tlv(0x06, long(30_000)), tlv(0x31))), "attributes", nil},
		{"an extended key usage of 30 kB", with(extensionRequest(extension(asn1.ObjectIdentifier{2, 5, 29, 37}, tlv(0x30, tlv(0x06, long(30_000)))))), "extKeyUsage", nil},
		{"an extended key usage of 64 octets", with(extensionRequest(extension(asn1.ObjectIdentifier{2, 5, 29, 37}, tlv(0x30, tlv(0x06, long(64)))))), "", nil},
		{"registeredID that is none", with(sans(tlv(0x88))), "registeredID", nil},
		{"otherName", with(sans(tlv(0xa0, oid(asn1.ObjectIdentifier{1, 2, 3}), tlv(0xa0, tlv(0x05))))), "", func(r *csr.Request) string {
			return cmp.Diff([]der.GeneralName{der.OtherName(asn1.ObjectIdentifier{1, 2, 3}, []byte{5, 0})}, r.SANs)
		}},
		{"otherName without value", with(sans(tlv(0xa0, oid(asn1.ObjectIdentifier{1, 2, 3}), tlv(0xa0)))), "otherName", nil},
		{"UPN that is no string", with(sans(tlv(0xa0, upn, tlv(0xa0, tlv(0x05))))), "not a string", nil},
		{"empty UPN", with(sans(tlv(0xa0, upn, tlv(0xa0, tlv(0x0c))))), "user principal name", nil},
		{"empty subjectAltName", with(sans()), "", func(r *csr.Request) string { return cmp.Diff(0, len(r.SANs)) }},
		{"subjectAltName that is none", with(extensionRequest(extension(pki.OIDSubjectAltName, tlv(0x31)))), "subjectAltName", nil},

		{"CA:TRUE", with(basic([]byte{1, 1, 0xff})), "", func(r *csr.Request) string { return cmp.Diff(true, r.IsCA) }},
		{"CA:TRUE, pathlen", with(basic([]byte{1, 1, 0xff, 2, 1, 0})), "", func(r *csr.Request) string { return cmp.Diff(true, r.IsCA) }},
		{"CA:FALSE with pathlen, as Windows does", with(basic([]byte{1, 1, 0, 2, 1, 3})), "", func(r *csr.Request) string { return cmp.Diff(false, r.IsCA) }},
		{"negative pathlen", with(basic([]byte{1, 1, 0xff, 2, 1, 0xff})), "basicConstraints", nil},
		{"CA neither true nor false", with(basic([]byte{1, 1, 7})), "basicConstraints", nil},
		{"empty extKeyUsage", with(extensionRequest(extension(asn1.ObjectIdentifier{2, 5, 29, 37}, tlv(0x30)))), "extKeyUsage", nil},
		{"keyUsage that is none", with(extensionRequest(extension(asn1.ObjectIdentifier{2, 5, 29, 15}, tlv(0x05)))), "keyUsage", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := newRequest(t)
			tt.change(in)
			b := in.encode(t)
			r, err := csr.Parse(b)
			if tt.detail != "" {
				wantFault(t, tt.name, err, fault.BadCSR, tt.detail)
				return
			}
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			if tt.check != nil {
				if diff := tt.check(r); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
			clear(b) // the request keeps nothing of its input
			if r.SPKIHash != sha256.Sum256(r.SPKI) {
				t.Error("the request shares memory with its input")
			}
		})
	}
}

func subject(tag byte, value string) func(*request) {
	return func(r *request) { r.subject = rdn(pki.OIDCommonName, tag, value) }
}

func commonName(want string) func(*csr.Request) string {
	return func(r *csr.Request) string {
		return cmp.Diff([]der.Attribute{{Type: pki.OIDCommonName, Value: want}}, r.Subject)
	}
}

func with(attributes ...[]byte) func(*request) {
	return func(r *request) { r.attributes = bytes.Join(attributes, nil) }
}

func TestParsePublicKeys(t *testing.T) {
	spki := newRequest(t).spki
	offCurve := slices.Clone(spki)
	offCurve[len(offCurve)-1] ^= 1
	tests := []struct {
		name string
		spki []byte
	}{
		{"point off the curve", offCurve},
		{"empty SEQUENCE", tlv(0x30)},
		{"unknown algorithm", tlv(0x30, tlv(0x30, oid(asn1.ObjectIdentifier{1, 2, 3})), der.AppendBitString(nil, []byte{1}))},
		{"Ed25519 of small order", tlv(0x30, tlv(0x30, oid(asn1.ObjectIdentifier{1, 3, 101, 112})), der.AppendBitString(nil, make([]byte, 32)))},
		{"X25519", tlv(0x30, tlv(0x30, oid(asn1.ObjectIdentifier{1, 3, 101, 110})), der.AppendBitString(nil, append(make([]byte, 31), 9)))},
	}
	for _, tt := range tests {
		in := newRequest(t)
		in.spki = tt.spki
		_, err := csr.Parse(in.encode(t))
		wantFault(t, tt.name, err, fault.BadPublicKey, "public key")
	}

	list, err := keys.ReadWeakList(strings.NewReader(fmt.Sprintf("%x\n", sha256.Sum256(spki))))
	if err != nil {
		t.Fatal(err)
	}
	_, err = csr.Parser{KeyRules: keys.Rules{Weak: list}}.Parse(newRequest(t).encode(t))
	wantFault(t, "listed key", err, fault.BadPublicKey, "weak keys")
}

func TestParseForms(t *testing.T) {
	plain := string(read(t, "p256.pem"))
	binary := string(read(t, "p256.der"))
	units := utf16.Encode([]rune(plain))
	wide := []byte("\xff\xfe")
	for _, u := range units {
		wide = append(wide, byte(u), byte(u>>8))
	}
	marker := newRequest(t)
	marker.subject = rdn(pki.OIDCommonName, 0x0c, "-----BEGIN CERTIFICATE REQUEST-----")
	key := "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
	tests := []struct {
		name, text string
		detail     string // empty: accepted
	}{
		{"PEM", plain, ""},
		{"CRLF", strings.ReplaceAll(plain, "\n", "\r\n"), ""},
		{"CR", strings.ReplaceAll(plain, "\n", "\r"), ""},
		{"byte order mark", "\xef\xbb\xbf" + plain, ""},
		{"byte order mark and CRLF", "\xef\xbb\xbf" + strings.ReplaceAll(plain, "\n", "\r\n"), ""},
		{"UTF-16", string(wide), ""},
		{"text before", "Certificate Request:\n  Data:\n" + plain, ""},
		{"text before that looks like DER", "0\x05 zero\n" + plain, ""},
		{"white space after", plain + "\n \r\n\t", ""},
		{"NEW CERTIFICATE REQUEST", strings.ReplaceAll(plain, "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"), ""},
		{"no newline at the end", strings.TrimSpace(plain), ""},
		{"DER", binary, ""},
		{"DER that holds the PEM marker", string(marker.encode(t)), ""},

		{"empty", "", "empty"},
		{"text", "hello", "neither DER nor PEM"},
		{"two requests", plain + plain, "2 PEM blocks"},
		{"a key before", key + plain, "private key"},
		{"a key after", plain + key, "private key"},
		{"a certificate", strings.ReplaceAll(plain, "CERTIFICATE REQUEST", "CERTIFICATE"), "this is a certificate"},
		{"another block", strings.ReplaceAll(plain, "CERTIFICATE REQUEST", "X509 CRL"), "no certificate request"},
		{"text after", plain + "x", "follows the PEM block"},
		{"headers", strings.Replace(plain, "-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1), "headers"},
		{"no end", plain[:len(plain)-20], "damaged"},
		{"not base64", strings.Replace(plain, "MII", "M!!", 1), "damaged"},
		{"DER and more in the block", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte(binary + "\x00")})), "not one DER structure"},
		{"empty block", "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n", "not one DER structure"},
		{"DER and a newline", binary + "\n", "1 octets follow"},
		{"DER cut off", binary[:len(binary)-1], "cut off"},
		{"indefinite length", "\x30\x80" + binary[4:] + "\x00\x00", "neither DER nor PEM"},
		{"one octet too large", strings.Repeat("\n", csr.MaxBytes+1-len(plain)) + plain, "more than 65536"},
		{"largest", strings.Repeat("\n", csr.MaxBytes-len(plain)) + plain, ""},
	}
	for _, tt := range tests {
		r, err := csr.Parse([]byte(tt.text))
		if tt.detail != "" {
			wantFault(t, tt.name, err, fault.BadCSR, tt.detail)
		} else if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if len(r.Subject) == 0 {
			t.Errorf("%s: no subject", tt.name)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	r, err := csr.Parse(read(t, "p256.pem"))
	if err != nil {
		t.Fatal(err)
	}
	const secret = "correct horse"
	if r.ChallengePassword.Reveal() != secret {
		t.Fatal("the test's request has no challenge")
	}
	type inner struct{ s csr.Secret }
	var logged bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&logged, nil))
	logger.Info("", "csr", r, "challenge", r.ChallengePassword, "copy", *r)
	encoded, err := json.Marshal(r.ChallengePassword)
	if err != nil {
		t.Fatal(err)
	}
	copied := *r
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%X"} {
		for _, v := range []any{r, copied, &copied, r.ChallengePassword, &r.ChallengePassword, inner{r.ChallengePassword}, []csr.Secret{r.ChallengePassword}} {
			got := fmt.Sprintf(verb, v)
			for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), strings.Trim(fmt.Sprintf("%d", []byte(secret)), "[]")} {
				if strings.Contains(got, form) {
					t.Errorf("%s of %T shows the secret: %s", verb, v, got)
				}
			}
		}
	}
	if strings.Contains(logged.String(), secret) || strings.Contains(string(encoded), secret) {
		t.Errorf("logged %s, encoded %s", &logged, encoded)
	}
	if !csr.NewSecret("").Empty() || csr.NewSecret("").String() != "" || (csr.Secret{}).Reveal() != "" {
		t.Error("the empty secret is not empty")
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) < 10 {
		f.Fatalf("%d seeds, %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		if block, _ := pem.Decode(b); block != nil {
			f.Add(block.Bytes)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := csr.Parser{AllowSHA1: true}.Parse(b)
		if err != nil {
			if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.BadCSR && e.Kind != fault.BadPublicKey || e.Detail == "" {
				t.Fatalf("Parse: %v, which is no fault of the request", err)
			}
			return
		}
		again, err := csr.Parser{AllowSHA1: true}.Parse(r.DER)
		if err != nil {
			t.Fatalf("the DER of an accepted request is refused: %v", err)
		}
		if diff := cmp.Diff(r.Subject, again.Subject) + cmp.Diff(r.SANs, again.SANs); diff != "" {
			t.Fatalf("read again, the request says something else:\n%s", diff)
		}
		outer := cryptobyte.String(r.DER)
		if !outer.SkipASN1(cbasn1.SEQUENCE) || !outer.Empty() {
			t.Fatal("DER is not one element")
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, file := range []string{"p256.der", "p256.pem", "cn-only.pem", "rsa.pem", "ed.pem"} {
		raw := read(b, file)
		b.Run(file, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := csr.Parse(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What the standard library alone takes for the same request, to compare with on a busy machine.
func BenchmarkParseStandardLibrary(b *testing.B) {
	raw := read(b, "p256.der")
	b.ReportAllocs()
	for b.Loop() {
		r, err := x509.ParseCertificateRequest(raw)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.CheckSignature(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestDeferKey: a key that is refused is told apart from a request that is broken, by whoever asks for that.
func TestDeferKey(t *testing.T) {
	deferring := csr.Parser{DeferKey: true}
	r, err := deferring.Parse(read(t, "rsa1024.pem"))
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, "1024 bits, deferred", r.KeyErr, fault.BadPublicKey, "1024 bits")
	if r.KeyAlgorithm != 0 || len(r.Subject) == 0 {
		t.Errorf("read as %v", r)
	}
	if r, err = deferring.Parse(read(t, "rsa.pem")); err != nil || r.KeyErr != nil || r.KeyAlgorithm == 0 {
		t.Errorf("a good key: %v, %v", r, err)
	}
	// The signature is checked all the same, and what cannot be checked is refused at once.
	block, _ := pem.Decode(read(t, "rsa1024.pem"))
	bent := bytes.Clone(block.Bytes)
	bent[len(bent)-1] ^= 1
	_, err = deferring.Parse(bent)
	wantFault(t, "1024 bits, bent", err, fault.BadCSR, "not by the key")
	_, err = deferring.Parse(read(t, "dsa.pem"))
	wantFault(t, "DSA", err, fault.BadPublicKey, "")
}
