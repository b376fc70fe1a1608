package der_test

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/certwright/certwright/pkg/der"
)

func BenchmarkTBSCertificate(b *testing.B) {
	template, fields := serverTemplate(b, p256(b))
	buffer := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := template.AppendTBS(buffer, fields); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCertificate is name, SAN, TBSCertificate and one P-256 signature.
func BenchmarkCertificate(b *testing.B) {
	signer := p256(b)
	template, fields := serverTemplate(b, signer)
	rdns := [][]der.Attribute{{cn("www.example.com")}}
	names := []der.GeneralName{der.DNSName("www.example.com"), der.DNSName("example.com")}
	a := template.SignatureAlgorithm()
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if fields.Subject, err = der.AppendName(nil, rdns); err != nil {
			b.Fatal(err)
		}
		if fields.SubjectAltName, err = der.AppendGeneralNames(nil, names); err != nil {
			b.Fatal(err)
		}
		tbs, err := template.AppendTBS(nil, fields)
		if err != nil {
			b.Fatal(err)
		}
		signature, err := a.Sign(rand.Reader, signer, tbs)
		if err != nil {
			b.Fatal(err)
		}
		der.AppendSigned(nil, tbs, a, signature)
	}
}

func BenchmarkCertificateX509(b *testing.B) {
	signer := p256(b)
	c := serverConfig(b, signer)
	_, fields := serverTemplate(b, signer)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(fields.SerialNumber), NotBefore: fields.NotBefore, NotAfter: fields.NotAfter,
		KeyUsage: c.KeyUsage, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		SubjectKeyId: fields.SubjectKeyID, DNSNames: []string{"www.example.com", "example.com"},
		CRLDistributionPoints: c.CRLDistributionPoints, OCSPServer: c.OCSPServers, IssuingCertificateURL: c.CAIssuers,
	}
	template.Subject.CommonName = "www.example.com"
	parent := &x509.Certificate{RawSubject: c.Issuer, SubjectKeyId: c.AuthorityKeyID, PublicKey: signer.Public()}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x509.CreateCertificate(rand.Reader, template, parent, signer.Public(), signer); err != nil {
			b.Fatal(err)
		}
	}
}
