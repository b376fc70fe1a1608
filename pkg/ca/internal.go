package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// The internal profiles: no request from outside reaches them.
const (
	ProfileRoot    = "root"
	ProfileIssuing = "issuing"
	ProfileOCSP    = "ocsp"
	ProfileHTTPS   = "https"
	ProfileRA      = "ra"
)

// InternalRequest asks for a certificate of the server's own.
type InternalRequest struct {
	Profile    string // one of the internal profiles
	Key        *issuer.Key
	PublicKey  crypto.PublicKey
	CommonName string   // empty: by the profile's rule
	Names      []string // host names and IP addresses for subjectAltName
}

// IssueInternal makes a certificate for the server itself: its listeners, its responders. The public key is refused to
// everybody else from then on.
func (a *Authority) IssueInternal(ctx context.Context, r InternalRequest) (_ *x509.Certificate, err error) {
	defer func() { a.countIssue(r.Profile, "internal", err) }()
	p, err := internalProfile(r.Profile)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(r.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	req := Request{Principal: pki.System(), Protocol: "internal", action: audit.ActionIssue}
	if r.CommonName != "" {
		req.Subject = []der.Attribute{{Type: pki.OIDCommonName, Value: r.CommonName}}
	}
	for _, n := range r.Names {
		name, err := profile.ParseSAN(n)
		if err != nil {
			return nil, fmt.Errorf("name %q of a listener: %w", n, err)
		}
		req.SANs = append(req.SANs, name)
	}
	issued, err := a.issue(ctx, r.Key, p, req, r.PublicKey, spki, keys.SPKIHash(spki))
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(issued.Record.DER)
}
