package csr

import (
	"crypto/x509"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/pki"
)

// Names returns the subject and the subject alternative names of a certificate in the form of a [Request], for its
// renewal: in their order, otherNames included. SANs are nil without the extension.
func Names(c *x509.Certificate) (subject []der.Attribute, sans []der.GeneralName, err error) {
	raw := cryptobyte.String(c.RawSubject)
	var rdns cryptobyte.String
	if !raw.ReadASN1(&rdns, cbasn1.SEQUENCE) || !raw.Empty() {
		return nil, nil, malformed("subject")
	}
	if subject, err = parseName(rdns); err != nil {
		return nil, nil, fmt.Errorf("subject: %w", err)
	}
	for _, e := range c.Extensions {
		if e.Id.Equal(pki.OIDSubjectAltName) {
			if sans, err = parseNames(e.Value); err != nil {
				return nil, nil, fmt.Errorf("subjectAltName: %w", err)
			}
		}
	}
	return subject, sans, nil
}
