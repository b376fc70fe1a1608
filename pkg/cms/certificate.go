package cms

import (
	"crypto/x509"
	"sync"

	"github.com/smallstep/pkcs7"
)

// legacyParser switches on, once, what [parseCertificate] needs of pkcs7. The switch is that package's global; nothing
// else in this program uses it.
var legacyParser = sync.OnceFunc(func() { pkcs7.SetFallbackLegacyX509CertificateParserEnabled(true) })

// parseCertificate reads a client's certificate. Windows marks the authorityKeyIdentifier of the self-signed
// certificates it makes for SCEP critical, against RFC 5280, Section 4.2.1.1, which crypto/x509 has refused since Go 1.23;
// pkcs7 carries a parser that lets it pass.
func parseCertificate(raw []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(raw)
	if err == nil || err.Error() != "x509: authority key identifier incorrectly marked critical" {
		return c, err
	}
	legacyParser()
	// It is reached through a whole message only, so it gets one: of our making, around this certificate.
	p, perr := pkcs7.Parse(CertificatesOnly(raw))
	if perr != nil || len(p.Certificates) != 1 {
		return nil, err
	}
	return p.Certificates[0], nil
}
