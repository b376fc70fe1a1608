package rest

import (
	"bytes"
	"context"
	"crypto/x509"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
)

// Server is what the server tells about itself.
type Server struct {
	Version   string    `json:"version"`
	PublicURL string    `json:"public_url" doc:"Where verifiers fetch CRLs and ask OCSP"`
	Store     string    `json:"store" enum:"sqlite,postgres"`
	Started   time.Time `json:"started"`
	Time      time.Time `json:"time" doc:"The server's clock"`
}

type serverOutput struct{ Body Server }

func (a *api) getServer(context.Context, *struct{}) (*serverOutput, error) {
	s := a.Server
	s.Time = a.Now().Truncate(time.Second)
	return &serverOutput{Body: s}, nil
}

// getMetrics is for monitoring systems that come over the network: they have a token.
func (a *api) getMetrics(context.Context, *struct{}) (*huma.StreamResponse, error) {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humachi.Unwrap(ctx)
		a.Metrics.ServeHTTP(w, r)
	}}, nil
}

// Issuer is an issuer as the API shows it.
type Issuer struct {
	Name         string    `json:"name"`
	Root         bool      `json:"root" doc:"A trust anchor; it issues CA certificates only"`
	Subject      string    `json:"subject" doc:"Subject (RFC 4514)"`
	Parent       string    `json:"parent,omitempty" doc:"Name of the issuer above; absent for a root"`
	KeyID        string    `json:"key_id" doc:"Names the key in addresses: first 16 hexadecimal digits of the SHA-256 of its SubjectPublicKeyInfo"`
	KeyAlgorithm string    `json:"key_algorithm"`
	Serial       string    `json:"serial"`
	Fingerprint  string    `json:"fingerprint" doc:"SHA-256 of the certificate, in hexadecimal"`
	NotBefore    time.Time `json:"not_before"`
	NotAfter     time.Time `json:"not_after"`
	Status       string    `json:"status" enum:"valid,revoked,hold,expired"`
	PEM          string    `json:"certificate" doc:"The certificate, PEM"`
	CRL          *CRL      `json:"crl,omitempty" doc:"The newest CRL; absent before the first"`

	Settings SettingsInForce `json:"settings" doc:"How its CRLs and OCSP answers are made"`
}

// CRL tells how fresh an issuer's certificate revocation list is.
type CRL struct {
	Number     int64     `json:"number"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Entries    int       `json:"entries"`
	URL        string    `json:"url" doc:"Where it is published, DER"`
}

func (a *api) issuer(i *issuer.Issuer) Issuer {
	k := i.Current
	c := k.Certificate
	out := Issuer{
		Name: i.Name, Root: i.Root, Subject: c.Subject.String(), KeyID: k.KeyID, Serial: k.SerialNumber().String(),
		Fingerprint: k.Fingerprint.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter, Status: "valid",
		PEM: string(issuer.EncodePEM(c)), Settings: a.inForce(i),
	}
	if alg, err := keys.AlgorithmOf(c.PublicKey); err == nil {
		out.KeyAlgorithm = alg.String()
	}
	if k.Parent != nil && !k.SelfSigned() {
		out.Parent = k.Parent.Issuer.Name
	}
	switch {
	case k.Revocation != nil:
		out.Status = k.Revocation.Status.String()
	case a.Now().After(c.NotAfter):
		out.Status = "expired"
	}
	if p, ok := a.CRLs.Latest(k.KeyID); ok {
		out.CRL = &CRL{Number: p.Number, ThisUpdate: p.ThisUpdate, NextUpdate: p.NextUpdate, Entries: p.Entries, URL: a.Server.PublicURL + "/crl/" + k.KeyID + ".crl"}
	}
	return out
}

type issuersOutput struct {
	Body struct {
		Issuers []Issuer `json:"issuers" doc:"Roots first"`
	}
}

func (a *api) listIssuers(context.Context, *struct{}) (*issuersOutput, error) {
	out := &issuersOutput{}
	out.Body.Issuers = []Issuer{}
	for _, i := range a.Issuers.Current().Issuers {
		out.Body.Issuers = append(out.Body.Issuers, a.issuer(i))
	}
	return out, nil
}

type issuerInput struct {
	Issuer string `path:"issuer" doc:"Name of the issuer" maxLength:"100"`
}

type issuerOutput struct{ Body Issuer }

func (a *api) getIssuer(_ context.Context, in *issuerInput) (*issuerOutput, error) {
	i, err := a.Issuers.Current().Issuer(in.Issuer)
	if err != nil {
		return nil, err
	}
	return &issuerOutput{Body: a.issuer(i)}, nil
}

func pemFile(name string, certs ...*x509.Certificate) *file {
	return &file{ContentType: mediaPEM, ContentDisposition: `attachment; filename="` + name + `"`, Body: issuer.EncodePEM(certs...)}
}

func (a *api) getIssuerPEM(_ context.Context, in *issuerInput) (*file, error) {
	i, err := a.Issuers.Current().Issuer(in.Issuer)
	if err != nil {
		return nil, err
	}
	return pemFile(i.Name+".pem", i.Current.Certificate), nil
}

func (a *api) getIssuerDER(_ context.Context, in *issuerInput) (*file, error) {
	i, err := a.Issuers.Current().Issuer(in.Issuer)
	if err != nil {
		return nil, err
	}
	return &file{ContentType: mediaDER, ContentDisposition: `attachment; filename="` + i.Name + `.cer"`, Body: bytes.Clone(i.Current.Certificate.Raw)}, nil
}

func (a *api) getIssuerChain(_ context.Context, in *issuerInput) (*file, error) {
	i, err := a.Issuers.Current().Issuer(in.Issuer)
	if err != nil {
		return nil, err
	}
	return pemFile(i.Name+"-chain.pem", i.Current.Chain()...), nil
}

func (a *api) getRoots(context.Context, *struct{}) (*file, error) {
	return pemFile("roots.pem", a.Issuers.Current().Roots()...), nil
}

func (a *api) getClientCA(context.Context, *struct{}) (*file, error) {
	return pemFile("client-ca.pem", a.Issuers.Current().ClientCAs()...), nil
}
