package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/store"
)

// The names of the issuers that a new store begins with.
const (
	RootIssuer    = "root"
	IssuingIssuer = "issuing"
)

// Hierarchy says what a new store begins with. All fields are required, but Token's.
type Hierarchy struct {
	Organization string // O of both subjects
	Algorithm    keys.Algorithm
	PublicURL    string
	Now          time.Time
	// Seal seals a private key for the store.
	Seal    func(crypto.Signer) ([]byte, error)
	KEKInfo []byte
	Token   pki.Token // the first administrator's
}

// Bootstrap makes a root and an issuing CA and sets the store up with them, the built-in profiles and the first token, in
// one transaction. store.ErrNotEmpty when somebody was faster.
func Bootstrap(ctx context.Context, s store.Store, h Hierarchy) error {
	if h.Organization == "" || h.PublicURL == "" || h.Seal == nil || h.KEKInfo == nil || h.Now.IsZero() {
		return errors.New("ca: incomplete hierarchy")
	}
	b := store.Bootstrap{KEKInfo: h.KEKInfo}
	root, rootCert, err := h.issuer(RootIssuer, ProfileRoot, nil, nil)
	if err != nil {
		return fmt.Errorf("making the root: %w", err)
	}
	root.Issuer.Root = true
	issuing, _, err := h.issuer(IssuingIssuer, ProfileIssuing, rootCert.certificate, rootCert.signer)
	if err != nil {
		return fmt.Errorf("making the issuing CA: %w", err)
	}
	for _, n := range []*store.NewIssuer{&root, &issuing} {
		address := pki.CRLAddressOf(h.PublicURL, n.Key.KeyID, pki.ScopeFull)
		address.RecordedAt, address.ListedAt, address.Until = h.Now, h.Now, carriedUntil(n.Record.NotAfter)
		n.Addresses = []pki.CRLAddress{address}
	}
	b.Issuers = []store.NewIssuer{root, issuing} // both with the root, index 0, as their parent
	for _, c := range profile.Builtins() {
		if c.Internal {
			continue
		}
		text, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("profile %q: %w", c.Name, err)
		}
		b.Profiles = append(b.Profiles, pki.ProfileVersion{Name: c.Name, Version: 1, Config: text, Builtin: true, CreatedAt: h.Now, CreatedBy: pki.System().Name})
	}
	detail := map[string]string{"root": root.Record.Fingerprint.String(), "issuing": issuing.Record.Fingerprint.String(), "public_url": h.PublicURL}
	if h.Token.ID != "" {
		b.Tokens = []pki.Token{h.Token}
		detail["token"] = h.Token.Name
	}
	b.Records = []audit.Record{{Time: h.Now, Action: audit.ActionBootstrap, Actor: "host", Role: pki.RoleAdministrator.String(), Target: "store", Detail: detail}}
	return s.Bootstrap(ctx, b)
}

// newCA is a CA certificate with its private key, while the hierarchy is made.
type newCA struct {
	certificate *x509.Certificate
	signer      crypto.Signer
}

// issuer makes an issuer with a new key, signed by the given parent, or by itself when there is none.
func (h *Hierarchy) issuer(name, profileName string, parent *x509.Certificate, parentSigner crypto.Signer) (store.NewIssuer, newCA, error) {
	fail := func(err error) (store.NewIssuer, newCA, error) { return store.NewIssuer{}, newCA{}, err }
	p, err := internalProfile(profileName)
	if err != nil {
		return fail(err)
	}
	signer, err := keys.Generate(h.Algorithm)
	if err != nil {
		return fail(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return fail(err)
	}
	title := map[string]string{RootIssuer: "Root CA", IssuingIssuer: "Issuing CA"}[name]
	// The key's id keeps the names of two CAs of one organization apart: verifiers find issuers by name.
	commonName := fmt.Sprintf("%s %s %s", clipped(h.Organization, 40), title, strings.ToUpper(keys.KeyID(spki)[:4]))
	var bounds profile.Issuer
	if parent != nil {
		bounds = profile.Issuer{NotBefore: parent.NotBefore, NotAfter: parent.NotAfter}
	}
	c, err := p.Contents(profile.Input{
		Subject:   []der.Attribute{{Type: pki.OIDOrganization, Value: h.Organization}, {Type: pki.OIDCommonName, Value: commonName}},
		PublicKey: signer.Public(), Now: h.Now, Issuer: bounds,
	})
	if err != nil {
		return fail(err)
	}
	subject, _, err := encodeNames(c)
	if err != nil {
		return fail(err)
	}
	by := parent
	if parent == nil {
		parentSigner = signer
		by = &x509.Certificate{RawSubject: subject, PublicKey: signer.Public()}
	}
	template, err := h.template(p.Profile, parent == nil, by)
	if err != nil {
		return fail(err)
	}
	serial, err := pki.NewSerialNumber(rand.Reader, c.NotAfter, h.Now)
	if err != nil {
		return fail(err)
	}
	raw, err := sign(template, &der.CertificateFields{
		SerialNumber: serial.Bytes(), NotBefore: c.NotBefore, NotAfter: c.NotAfter, Subject: subject,
		SubjectPublicKeyInfo: spki, SubjectKeyID: der.SubjectKeyID(spki),
	}, parentSigner)
	if err != nil {
		return fail(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return fail(err)
	}
	sealed, err := h.Seal(signer)
	if err != nil {
		return fail(err)
	}
	fingerprint := pki.Fingerprint(sha256.Sum256(raw))
	return store.NewIssuer{
		Issuer:      pki.Issuer{Name: name, Created: h.Now},
		Key:         pki.IssuerKey{KeyID: keys.KeyID(spki), Current: true, SealedKey: sealed, Created: h.Now},
		Certificate: pki.IssuerCertificate{Fingerprint: fingerprint, Current: true, DER: raw},
		Record: pki.Certificate{
			Serial: serial, Fingerprint: fingerprint, SPKIHash: keys.SPKIHash(spki), Subject: c.SubjectString,
			Profile: p.Name(), ProfileVersion: p.Version, Requester: pki.System().Name, Protocol: "internal", CRLScope: pki.ScopeCA,
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, IssuedAt: h.Now, DER: raw,
		},
	}, newCA{certificate: cert, signer: signer}, nil
}

func (h *Hierarchy) template(p *profile.Profile, self bool, by *x509.Certificate) (*der.CertificateTemplate, error) {
	if !self {
		return newTemplate(p, h.Algorithm, by, h.PublicURL, keys.KeyID(by.RawSubjectPublicKeyInfo))
	}
	// A trust anchor names nobody above it: no authority key id, no addresses (RFC 5280, Section 4.2.1.1).
	c := p.CertificateConfig(h.Algorithm)
	var err error
	if c.SignatureAlgorithm, err = der.SignatureAlgorithmFor(by.PublicKey); err != nil {
		return nil, err
	}
	c.Issuer = by.RawSubject
	return der.NewCertificateTemplate(c)
}

// clipped returns at most n characters of a name, so that a common name made of it has at most 64.
func clipped(s string, n int) string {
	r := []rune(s)
	if len(r) > n {
		r = r[:n]
	}
	return strings.TrimSpace(string(r))
}
