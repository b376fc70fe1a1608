package export

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

func TestNumbers(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func(skid string, number *big.Int, extra ...pkix.Extension) []byte {
		ca := &x509.Certificate{RawSubject: []byte{0x30, 0}, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte(skid)}
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: number, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour), ExtraExtensions: extra,
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(5), RevocationTime: time.Now()}},
		}, ca, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	large := new(big.Int).Lsh(big.NewInt(1), 150)
	shard := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x83, 1, 0xff}}
	delta := func(base byte) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, base}}
	}
	older := []struct {
		name     string
		new, old []byte
		want     bool
	}{
		{"same", make("a", big.NewInt(7)), make("a", big.NewInt(7)), false},
		{"newer", make("a", large), make("a", big.NewInt(7)), false},
		{"older", make("a", big.NewInt(7)), make("a", large), true},
		{"another key", make("b", big.NewInt(7)), make("a", large), false},
		{"another scope", make("a", big.NewInt(7), shard), make("a", large), false},
		{"older shard", make("a", big.NewInt(7), shard), make("a", large, shard), true},
		{"a delta is no complete one", make("a", big.NewInt(7), delta(1)), make("a", large), false},
		{"an older delta of another base", make("a", big.NewInt(7), delta(1)), make("a", large, delta(2)), true},
		{"no CRL there", make("a", big.NewInt(7)), []byte("something"), false},
		{"no CRL", []byte{0x30, 0x80, 1}, make("a", large), false},
	}
	for _, test := range older {
		if got := numbersOf(test.new).olderThan(numbersOf(test.old)); got != test.want {
			t.Errorf("%s: olderThan = %v, want %v", test.name, got, test.want)
		}
		again, ok := parseNumbers(numbersOf(test.old).String())
		if got := numbersOf(test.new).olderThan(again); got != test.want || !ok {
			t.Errorf("%s, through text: olderThan = %v, want %v", test.name, got, test.want)
		}
	}
	for _, bad := range []string{"x", "0011223344556677", "0011223344556677:xyz", "00:1"} {
		if _, ok := parseNumbers(bad); ok {
			t.Errorf("parseNumbers(%q) accepts", bad)
		}
	}
}

// FuzzNumbers: what is there came from anybody. Whatever Go's parser reads has the number that it reads.
func FuzzNumbers(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	ca := &x509.Certificate{RawSubject: []byte{0x30, 0}, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte("a")}
	for entries := range 2 {
		list := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: time.Now(), NextUpdate: time.Date(2070, 1, 1, 0, 0, 0, 0, time.UTC)}
		for range entries {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(5), RevocationTime: time.Now()})
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, ca, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	}
	f.Add([]byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"))
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, content []byte) {
		got := numbersOf(content)
		if again, ok := parseNumbers(got.String()); !ok || again.String() != got.String() {
			t.Errorf("%s is read as %s", got, again)
		}
		list, err := x509.ParseRevocationList(content)
		if err != nil || list.Number == nil {
			return
		}
		for _, n := range got {
			if n.Cmp(list.Number) != 0 {
				t.Errorf("number %s, Go reads %s", n, list.Number)
			}
		}
		if len(got) != 1 {
			t.Errorf("%d numbers of one CRL", len(got))
		}
	})
}
