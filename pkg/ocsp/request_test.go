package ocsp_test

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/ocsp"
)

// The structures of RFC 6960, Section 4.1.1, for requests that tests make. encoding/asn1 writes them, so that our parser
// is not judged by itself.
type (
	algorithm struct {
		OID    asn1.ObjectIdentifier
		Params asn1.RawValue `asn1:"optional"`
	}
	certID struct {
		Hash   algorithm
		Name   []byte
		Key    []byte
		Serial *big.Int
	}
	extension struct {
		OID      asn1.ObjectIdentifier
		Critical bool `asn1:"optional"`
		Value    []byte
	}
	single struct {
		CertID     certID
		Extensions []extension `asn1:"explicit,tag:0,optional,omitempty"`
	}
	tbsRequest struct {
		Version    int           `asn1:"explicit,tag:0,optional,default:0"`
		Requestor  asn1.RawValue `asn1:"optional"`
		List       []single
		Extensions []extension `asn1:"explicit,tag:2,optional,omitempty"`
	}
	request struct {
		TBS       tbsRequest
		Signature asn1.RawValue `asn1:"optional"`
	}
)

var (
	oidSHA1   = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA512 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
	oidNonce  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	oidOther  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 8}
)

func id(edit ...func(*certID)) certID {
	c := certID{
		Hash: algorithm{OID: oidSHA1, Params: asn1.NullRawValue}, Name: bytes.Repeat([]byte{1}, 20), Key: bytes.Repeat([]byte{2}, 20),
		Serial: big.NewInt(0x4101),
	}
	for _, f := range edit {
		f(&c)
	}
	return c
}

func nonce(n int) extension {
	value, _ := asn1.Marshal(bytes.Repeat([]byte{7}, n))
	return extension{OID: oidNonce, Value: value}
}

func marshal(t testing.TB, r request) []byte {
	t.Helper()
	b, err := asn1.Marshal(r)
	if err != nil {
		t.Fatalf("making a request: %v", err)
	}
	return b
}

func of(ids ...certID) request {
	var r request
	for _, c := range ids {
		r.TBS.List = append(r.TBS.List, single{CertID: c})
	}
	return r
}

func many(n int) []certID {
	all := make([]certID, n)
	for i := range all {
		all[i] = id()
	}
	return all
}

func TestParseRequest(t *testing.T) {
	with := func(edit func(*request)) request {
		r := of(id())
		edit(&r)
		return r
	}
	signature := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte{0x30, 0x00}}
	name := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true, Bytes: append([]byte{0x82, 10}, "ra.example"...)}
	tests := []struct {
		name    string
		request request
		want    string // part of the ParseError; "" is fine; "many" is ErrTooManyCertIDs
	}{
		{"plain", of(id()), ""},
		{"eight", of(many(8)...), ""},
		{"nine", of(many(9)...), "many"},
		{"none", request{}, "no requestList"},
		{"SHA-256", of(id(func(c *certID) {
			c.Hash.OID, c.Name, c.Key = oidSHA256, make([]byte, 32), make([]byte, 32)
		})), ""},
		{"no parameters", of(id(func(c *certID) { c.Hash.Params = asn1.RawValue{} })), ""},
		{"other parameters", of(id(func(c *certID) { c.Hash.Params = asn1.RawValue{Tag: 4, Bytes: []byte{1}} })), "parameters"},
		{"SHA-512", of(id(func(c *certID) { c.Hash.OID = oidSHA512 })), ""},
		{"short hash", of(id(func(c *certID) { c.Key = c.Key[1:] })), "length"},
		{"long serial", of(id(func(c *certID) { c.Serial.Lsh(c.Serial, 160) })), ""},
		{"negative serial", of(id(func(c *certID) { c.Serial = big.NewInt(-1) })), ""},
		{"nonce", with(func(r *request) { r.TBS.Extensions = []extension{nonce(32)} }), ""},
		{"critical nonce", with(func(r *request) {
			n := nonce(1)
			n.Critical = true
			r.TBS.Extensions = []extension{n}
		}), ""},
		{"longest nonce", with(func(r *request) { r.TBS.Extensions = []extension{nonce(128)} }), ""},
		{"too long nonce", with(func(r *request) { r.TBS.Extensions = []extension{nonce(129)} }), "nonce"},
		{"empty nonce", with(func(r *request) { r.TBS.Extensions = []extension{nonce(0)} }), "nonce"},
		{"nonce without octets", with(func(r *request) { r.TBS.Extensions = []extension{{OID: oidNonce}} }), "nonce"},
		{"unwrapped nonce", with(func(r *request) { r.TBS.Extensions = []extension{{OID: oidNonce, Value: []byte("1234567890")}} }), ""},
		{"two nonces", with(func(r *request) { r.TBS.Extensions = []extension{nonce(8), nonce(8)} }), "twice"},
		{"unknown extension", with(func(r *request) { r.TBS.Extensions = []extension{{OID: oidOther, Value: []byte{5, 0}}} }), ""},
		{"critical extension", with(func(r *request) {
			r.TBS.Extensions = []extension{{OID: oidOther, Critical: true, Value: []byte{5, 0}}}
		}), "critical"},
		{"critical single extension", with(func(r *request) {
			r.TBS.List[0].Extensions = []extension{{OID: oidOther, Critical: true, Value: []byte{5, 0}}}
		}), "critical"},
		{"single extension", with(func(r *request) {
			r.TBS.List[0].Extensions = []extension{{OID: oidOther, Value: []byte{5, 0}}}
		}), ""},
		{"version 2", with(func(r *request) { r.TBS.Version = 1 }), "version"},
		{"requestorName", with(func(r *request) { r.TBS.Requestor = name }), ""},
		{"signed", with(func(r *request) { r.Signature = signature }), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			der := marshal(t, test.request)
			r, err := ocsp.ParseRequest(der)
			var parse *ocsp.ParseError
			switch {
			case test.want == "" && err != nil:
				t.Fatalf("ParseRequest(%x): %v", der, err)
			case test.want == "many" && !errors.Is(err, ocsp.ErrTooManyCertIDs):
				t.Fatalf("ParseRequest(%x): got error %v, want ErrTooManyCertIDs", der, err)
			case test.want != "" && test.want != "many" && (!errors.As(err, &parse) || !strings.Contains(parse.Problem, test.want)):
				t.Fatalf("ParseRequest(%x): got error %v, want %q", der, err, test.want)
			}
			if test.want != "" {
				return
			}
			if len(r.CertIDs) != len(test.request.TBS.List) {
				t.Fatalf("got %d CertIDs, want %d", len(r.CertIDs), len(test.request.TBS.List))
			}
			for i, got := range r.CertIDs {
				want := test.request.TBS.List[i].CertID
				raw, _ := asn1.Marshal(want)
				if !bytes.Equal(got.Raw, raw) || !bytes.Equal(got.IssuerNameHash, want.Name) || !bytes.Equal(got.IssuerKeyHash, want.Key) {
					t.Errorf("CertID: got %+v, want %x", got, raw)
				}
				if n := want.Serial; n.Sign() > 0 && n.BitLen() < 160 && !bytes.Equal(got.SerialNumber.Bytes(), n.Bytes()) {
					t.Errorf("serialNumber: got %s, want %x", got.SerialNumber, n)
				} else if (n.Sign() < 0 || n.BitLen() >= 160) && got.SerialNumber != "" {
					t.Errorf("serialNumber of what cannot be issued: got %s, want none", got.SerialNumber)
				}
				switch want.Hash.OID.String() {
				case oidSHA1.String():
					if got.Hash != crypto.SHA1 {
						t.Errorf("hash: got %v, want SHA-1", got.Hash)
					}
				case oidSHA512.String():
					if got.Hash != 0 {
						t.Errorf("hash: got %v, want none", got.Hash)
					}
				}
			}
			for _, e := range test.request.TBS.Extensions {
				if e.OID.Equal(oidNonce) && !bytes.Equal(r.Nonce, e.Value) {
					t.Errorf("nonce: got %x, want %x", r.Nonce, e.Value)
				}
			}
		})
	}
}

func TestParseRequestGarbage(t *testing.T) {
	good := marshal(t, of(id()))
	for name, der := range map[string][]byte{
		"nothing":              nil,
		"a NULL":               {5, 0},
		"an empty SEQUENCE":    {0x30, 0},
		"trailing octet":       append(bytes.Clone(good), 0),
		"too long":             make([]byte, ocsp.MaxRequestBytes+1),
		"indefinite length":    {0x30, 0x80, 0, 0},
		"serial with zeros":    bytes.Replace(good, []byte{2, 2, 0x41, 1}, []byte{2, 2, 0, 0x41}, 1),
		"empty serial, padded": bytes.Replace(good, []byte{2, 2, 0x41, 1}, []byte{2, 0, 5, 0}, 1),
	} {
		if _, err := ocsp.ParseRequest(der); err == nil {
			t.Errorf("%s: ParseRequest(%x) has no error", name, der)
		}
	}
	for i := range good {
		if _, err := ocsp.ParseRequest(good[:i]); err == nil {
			t.Errorf("the first %d octets of a request are taken for one", i)
		}
	}
}

// corpus returns requests as other programs make them: OpenSSL's from testdata, and golang.org/x/crypto/ocsp's.
func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no requests in testdata: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		der, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[filepath.Base(file)] = der
	}
	x, err := (&xocsp.Request{
		HashAlgorithm: crypto.SHA256, IssuerNameHash: make([]byte, 32), IssuerKeyHash: make([]byte, 32), SerialNumber: big.NewInt(0x80),
	}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	all["x/crypto"] = x
	return all
}

func TestParseRequestsOfOtherPrograms(t *testing.T) {
	for name, der := range corpus(t) {
		r, err := ocsp.ParseRequest(der)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.Contains(name, "nonce") != (r.Nonce != nil) {
			t.Errorf("%s: nonce is %x", name, r.Nonce)
		}
		if want := strings.Count(name, "two") + 1; len(r.CertIDs) != want {
			t.Errorf("%s: %d CertIDs, want %d", name, len(r.CertIDs), want)
		}
		for _, c := range r.CertIDs {
			if c.SerialNumber == "" || c.Hash == 0 {
				t.Errorf("%s: CertID %+v", name, c)
			}
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, der := range corpus(f) {
		f.Add(der)
	}
	f.Add(marshal(f, of(many(9)...)))
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ocsp.ParseRequest(der)
		if err != nil {
			var parse *ocsp.ParseError
			if !errors.As(err, &parse) && !errors.Is(err, ocsp.ErrTooManyCertIDs) {
				t.Fatalf("an error of no known kind: %v", err)
			}
			return
		}
		if len(r.CertIDs) < 1 || len(r.CertIDs) > ocsp.MaxCertIDs || len(r.Nonce) > ocsp.MaxNonce+3 {
			t.Fatalf("limits: %d CertIDs, nonce of %d", len(r.CertIDs), len(r.Nonce))
		}
		// What we take, x/crypto must read alike, so far as it looks at the same things.
		x, err := xocsp.ParseRequest(der)
		if err != nil || x.HashAlgorithm != r.CertIDs[0].Hash {
			return
		}
		if !bytes.Equal(x.IssuerNameHash, r.CertIDs[0].IssuerNameHash) || !bytes.Equal(x.IssuerKeyHash, r.CertIDs[0].IssuerKeyHash) {
			t.Fatalf("the CertID is read differently: %+v, %+v", x, r.CertIDs[0])
		}
		if s := r.CertIDs[0].SerialNumber; s != "" && new(big.Int).SetBytes(s.Bytes()).Cmp(x.SerialNumber) != 0 {
			t.Fatalf("the serial number is read differently: %x, %s", x.SerialNumber, s)
		}
	})
}

// TestMakeCorpus makes testdata anew: CERTWRIGHT_UPDATE=1 go test -run TestMakeCorpus ./pkg/ocsp
func TestMakeCorpus(t *testing.T) {
	if os.Getenv("CERTWRIGHT_UPDATE") == "" {
		t.Skip("testdata is made by OpenSSL when CERTWRIGHT_UPDATE is set")
	}
	dir := t.TempDir()
	now := time.Now()
	h := setup(t, now)
	leaf := h.Issuing.Issue(t, h.store, now, nil)
	issuerFile := writePEM(t, dir, "issuer.pem", "CERTIFICATE", h.Issuing.Certificate.Raw)
	leafFile := writePEM(t, dir, "leaf.pem", "CERTIFICATE", leaf.Certificate.Raw)
	for name, args := range map[string][]string{
		"openssl-sha1":           {"-no_nonce", "-issuer", issuerFile, "-cert", leafFile},
		"openssl-sha256":         {"-no_nonce", "-sha256", "-issuer", issuerFile, "-cert", leafFile},
		"openssl-sha1-nonce":     {"-issuer", issuerFile, "-cert", leafFile},
		"openssl-sha256-nonce":   {"-sha256", "-issuer", issuerFile, "-cert", leafFile},
		"openssl-two-sha1":       {"-no_nonce", "-issuer", issuerFile, "-cert", leafFile, "-serial", "0x4102"},
		"openssl-two-sha1-nonce": {"-issuer", issuerFile, "-cert", leafFile, "-serial", "0x4102"},
	} {
		out := filepath.Join(dir, name)
		if b, err := exec.Command("openssl", append([]string{"ocsp", "-reqout", out}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, b)
		}
		der, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", name+".hex"), []byte(hex.EncodeToString(der)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
