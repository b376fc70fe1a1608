package rest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/store"
)

// protocolServerKey is the protocol of certificates whose key this server made: whoever has to judge a break-in can find
// them.
const protocolServerKey = "rest-key"

type issueWithKeyInput struct {
	IdempotencyInput
	Body struct {
		Profile      string     `json:"profile" doc:"What the certificate is for; never a profile for CAs" maxLength:"100"`
		Issuer       string     `json:"issuer,omitempty" doc:"Name of the issuer; may be left out while there is only one" maxLength:"100"`
		Subject      string     `json:"subject,omitempty" doc:"Subject (RFC 4514)" maxLength:"4096"`
		SANs         []string   `json:"sans,omitempty" doc:"Alternative names, as in DNS:www.example.com" maxItems:"1000"`
		Validity     string     `json:"validity,omitempty" doc:"How long, as in 90d; the profile's default if absent" maxLength:"32"`
		NotAfter     *time.Time `json:"not_after,omitempty" doc:"The end, in place of validity"`
		Device       string     `json:"device,omitempty" doc:"Identity of the device that will use it" maxLength:"256"`
		KeyAlgorithm string     `json:"key_algorithm,omitempty" enum:"p-256,p-384,p-521,ed25519,rsa-2048,rsa-3072,rsa-4096" default:"p-256"`
		Format       string     `json:"format,omitempty" enum:"pem,pkcs12,pkcs12-compat" default:"pem" doc:"pem: the key alone, PKCS #8, not encrypted. pkcs12: key and whole chain under AES-256. pkcs12-compat: under 3DES and SHA-1, for macOS before 12, Windows before Server 2019 and Android up to 13"`
		Password     string     `json:"password,omitempty" doc:"Of the PKCS #12 file: 12 to 128 characters of ASCII; made by the server if absent" maxLength:"128"`
		FriendlyName string     `json:"friendly_name,omitempty" doc:"What stores of certificates show for the PKCS #12 file; the certificate's first name if absent" maxLength:"100"`
	}
}

// CertificateWithKey is a new certificate with its private key: as PEM, or inside a PKCS #12 file.
type CertificateWithKey struct {
	Certificate
	PrivateKey string `json:"private_key,omitempty" doc:"The private key, PEM (PKCS #8); only in this answer"`
	PKCS12     []byte `json:"pkcs12,omitempty" doc:"The PKCS #12 file in base64, with the private key and the whole chain; only in this answer"`
	Password   string `json:"password,omitempty" doc:"Password of the file, if the server made it; only in this answer"`
}

type certificateWithKeyOutput struct {
	Location     string `header:"Location" doc:"Address of the certificate; it never has the key"`
	CacheControl string `header:"Cache-Control"`
	Body         CertificateWithKey
}

// issueWithKey makes a key, has a certificate issued for it, and hands both out. The key exists in this call's memory and
// in its answer, and nowhere else: a lost answer is a lost key.
func (a *api) issueWithKey(ctx context.Context, in *issueWithKeyInput) (_ *certificateWithKeyOutput, err error) {
	asked := false
	defer func() {
		if err != nil && !asked {
			a.CA.Refused(in.Body.Profile, err)
		}
	}()
	p := principal(ctx)
	r := ca.Request{
		Principal: p, RequestID: problem.RequestID(ctx), Protocol: protocolServerKey, Profile: in.Body.Profile, Device: in.Body.Device,
	}
	if err := a.wishes(p, in, &r); err != nil {
		return nil, err
	}
	password, generated, err := in.password()
	if err != nil {
		return nil, err
	}
	algorithm, err := keys.ParseAlgorithm(in.Body.KeyAlgorithm)
	if err != nil {
		return nil, fault.New(fault.BadRequest, "%s", err).WithField("key_algorithm")
	}
	var key crypto.Signer
	issued, replayed, err := a.once(ctx, func(once *store.Idempotency) (_ *ca.Issued, err error) {
		if key, err = a.makeKey(ctx, algorithm); err != nil {
			return nil, err
		}
		// The key takes the way of every other: through a CSR, whose parser knows what a key must be like.
		raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "making a CSR")
		}
		if r.CSR, err = a.CSRParser.Parse(raw); err != nil {
			return nil, err
		}
		r.Idempotency, asked = once, true
		return a.CA.Issue(ctx, r)
	})
	if err != nil {
		return nil, err
	}
	if replayed {
		return nil, keyHandedOut(issued.Record)
	}
	out := &certificateWithKeyOutput{CacheControl: "no-store"}
	made := a.issued(issued)
	out.Location, out.Body.Certificate = made.Location, made.Body
	if in.Body.Format == "pem" {
		text, err := keys.MarshalPrivateKeyPEM(key)
		if err != nil {
			return nil, err
		}
		out.Body.PrivateKey = string(text)
		clear(text)
		return out, nil
	}
	leaf, err := x509.ParseCertificate(issued.Record.DER)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "reading a certificate of ours")
	}
	out.Body.PKCS12, err = PKCS12{
		Key: key, Chain: append([]*x509.Certificate{leaf}, issued.Chain...), Password: password, Compat: in.Body.Format == "pkcs12-compat",
		FriendlyName: friendlyName(in.Body.FriendlyName, leaf, issued.Record),
	}.Encode()
	if err != nil {
		return nil, err
	}
	if generated {
		out.Body.Password = password
	}
	return out, nil
}

// existing is a conflict with something that has an address.
type existing struct {
	error
	location string
}

func (e *existing) Unwrap() error { return e.error }

// keyHandedOut is the answer to a repeated request: the certificate is there, and its key was handed out with it.
func keyHandedOut(c pki.Certificate) error {
	return &existing{location: Root + "/certificates/" + c.Fingerprint.String(), error: fault.New(fault.Conflict,
		"this request was answered before, with the certificate %s and its key, which is handed out once", c.Fingerprint).
		WithHint("if that answer was lost, so is the key: revoke the certificate, and ask again with a new Idempotency-Key")}
}

// wishes checks who may have what, and fills in what the certificate shall be like.
func (a *api) wishes(p pki.Principal, in *issueWithKeyInput, r *ca.Request) error {
	i, err := a.Issuers.Current().Issuer(in.Body.Issuer)
	if err != nil {
		return err
	}
	r.Issuer = i.Name
	if err := mayHaveKey(a, p, i, in.Body.Profile); err != nil {
		return err
	}
	if in.Body.Subject == "" && len(in.Body.SANs) == 0 {
		return fault.New(fault.BadRequest, "the certificate has no name").WithField("sans").WithHint(`as in "sans": ["DNS:www.example.com"]`)
	}
	var subject *string
	if in.Body.Subject != "" {
		subject = &in.Body.Subject
	}
	return override(r, subject, in.Body.SANs, in.Body.Validity, in.Body.NotAfter)
}

// mayHaveKey refuses profiles that the principal may not use, and those of CAs to everybody.
func mayHaveKey(a *api, p pki.Principal, i *issuer.Issuer, name string) error {
	if err := auth.MayUse(p, i.Name, name); err != nil {
		return err
	}
	prof, err := a.CA.Profile(name)
	if err != nil {
		return err
	}
	if prof.IsCA() {
		return fault.New(fault.PolicyRefused, "the key of a CA is made where it is used, and never handed out").WithField("profile").
			WithHint("send a CSR: POST %s/certificates", Root)
	}
	return nil
}

// password returns the PKCS #12 file's password, and whether it was made here.
func (in *issueWithKeyInput) password() (password string, generated bool, err error) {
	switch {
	case in.Body.Format == "pem" && (in.Body.Password != "" || in.Body.FriendlyName != ""):
		return "", false, fault.New(fault.BadRequest, "password and friendly_name are for PKCS #12").WithField("format")
	case in.Body.Format == "pem":
		return "", false, nil
	case in.Body.Password == "":
		return rand.Text(), true, nil // 128 bits
	}
	if err := CheckPKCS12Password(in.Body.Password); err != nil {
		return "", false, fault.New(fault.BadRequest, "%s", err).WithField("password").WithHint("leave it out, and the server makes a good one")
	}
	return in.Body.Password, false, nil
}

// makeKey makes a key, a few at a time, and stops waiting when the client has.
func (a *api) makeKey(ctx context.Context, algorithm keys.Algorithm) (crypto.Signer, error) {
	done, err := a.keyMaking.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	key, err := keys.Generate(algorithm)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "making a key")
	}
	if err := ctx.Err(); err != nil {
		// Nobody would get the key: no certificate for it either.
		return nil, fault.Wrap(fault.Unavailable, err, "making the key took too long").WithHint("ask for an elliptic-curve key, which takes no time")
	}
	return key, nil
}

// friendlyName returns what was asked for, else the certificate's first name.
func friendlyName(asked string, leaf *x509.Certificate, record pki.Certificate) string {
	switch {
	case asked != "":
		return asked
	case leaf.Subject.CommonName != "":
		return leaf.Subject.CommonName
	case len(record.SANs) > 0:
		_, name, _ := strings.Cut(record.SANs[0], ":")
		return name
	}
	return record.Serial.String()
}
