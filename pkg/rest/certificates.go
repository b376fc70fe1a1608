package rest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/store"
)

// Certificate is a certificate as the API shows it.
type Certificate struct {
	ID             string      `json:"id" doc:"SHA-256 fingerprint of the certificate, in hexadecimal"`
	Serial         string      `json:"serial" doc:"Serial number, in hexadecimal"`
	Issuer         string      `json:"issuer" doc:"Name of the issuer"`
	Subject        string      `json:"subject" doc:"Subject (RFC 4514)"`
	SANs           []string    `json:"sans" doc:"Subject alternative names, as in DNS:www.example.com"`
	Profile        string      `json:"profile"`
	ProfileVersion int         `json:"profile_version"`
	Status         string      `json:"status" enum:"valid,revoked,hold,expired" doc:"A revoked certificate stays revoked when it has ended"`
	NotBefore      time.Time   `json:"not_before"`
	NotAfter       time.Time   `json:"not_after" doc:"The last second in which it is valid"`
	IssuedAt       time.Time   `json:"issued_at"`
	Requester      string      `json:"requester" doc:"Who asked for it, as in token:NAME"`
	Protocol       string      `json:"protocol"`
	Device         string      `json:"device,omitempty"`
	Source         string      `json:"source,omitempty" doc:"Network address of the request"`
	SPKISHA256     string      `json:"spki_sha256" doc:"SHA-256 of the SubjectPublicKeyInfo, in hexadecimal"`
	Replaces       string      `json:"replaces,omitempty" doc:"Id of the certificate that this one renews"`
	Revocation     *Revocation `json:"revocation,omitempty"`
	PEM            string      `json:"certificate,omitempty" doc:"The certificate, PEM; left out of lists"`
	Chain          string      `json:"chain,omitempty" doc:"The issuers' certificates up to the root, PEM; left out of lists"`
	Warnings       []string    `json:"warnings,omitempty" doc:"What was changed or found odd while issuing"`
}

// Revocation is the state of a certificate that is not good.
type Revocation struct {
	Reason         string     `json:"reason" doc:"RFC 5280, Section 5.3.1"`
	RevokedAt      time.Time  `json:"revoked_at" doc:"The revocationDate in CRLs and OCSP answers, in whole seconds"`
	InvalidityDate *time.Time `json:"invalidity_date,omitempty"`
	DecidedAt      time.Time  `json:"decided_at" doc:"When it was decided"`
	FirstCRLAt     *time.Time `json:"first_crl_at,omitempty" doc:"When the first CRL that has it was published; absent while none has, or if that is not known"`
	FirstOCSPAt    *time.Time `json:"first_ocsp_at,omitempty" doc:"From when on OCSP answers said so; absent if that is not known"`
}

func (a *api) certificate(c pki.Certificate) Certificate {
	out := Certificate{
		ID: c.Fingerprint.String(), Serial: c.Serial.String(), Subject: c.Subject, SANs: c.SANs, Profile: c.Profile,
		ProfileVersion: c.ProfileVersion, NotBefore: c.NotBefore, NotAfter: c.NotAfter, IssuedAt: c.IssuedAt,
		Requester: c.Requester, Protocol: c.Protocol, Device: c.Device, Source: c.Source,
		SPKISHA256: hex.EncodeToString(c.SPKIHash[:]), Status: "valid",
	}
	if out.SANs == nil {
		out.SANs = []string{}
	}
	snapshot := a.Issuers.Current()
	if i := snapshot.ByID(c.IssuerID); i != nil {
		out.Issuer = i.Name
	}
	if c.Replaces != (pki.Fingerprint{}) {
		out.Replaces = c.Replaces.String()
	}
	switch {
	case c.Revocation != nil:
		out.Status = c.Revocation.Status.String()
		out.Revocation = &Revocation{Reason: c.Revocation.Reason.String(), RevokedAt: c.Revocation.RevokedAt.Truncate(time.Second), DecidedAt: c.Revocation.RevokedAt}
		if !c.FirstCRLAt.IsZero() {
			out.Revocation.FirstCRLAt = &c.FirstCRLAt
		}
		if !c.FirstOCSPAt.IsZero() {
			out.Revocation.FirstOCSPAt = &c.FirstOCSPAt
		}
		if d := c.Revocation.InvalidityDate; !d.IsZero() {
			out.Revocation.InvalidityDate = &d
		}
	case a.Now().After(c.NotAfter):
		out.Status = "expired"
	}
	if c.DER != nil {
		out.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER}))
		if k := snapshot.KeyByInternalID(c.IssuerKeyID); k != nil && k.Fingerprint != c.Fingerprint {
			out.Chain = k.ChainPEM
		}
	}
	return out
}

// certificateOutput answers with a certificate.
type certificateOutput struct {
	Body Certificate
}

// visible refuses a certificate that the principal may not see, as if it did not exist: an enroller sees what it issued,
// and a token's limits to issuers and profiles hold for reading too.
func (a *api) visible(p pki.Principal, c pki.Certificate) error {
	i := a.Issuers.Current().ByID(c.IssuerID)
	name := ""
	if i != nil {
		name = i.Name
	}
	if p.Role == pki.RoleEnroller && c.Requester != p.Name || auth.MayUse(p, name, c.Profile) != nil {
		return fault.New(fault.NotFound, "there is no such certificate")
	}
	return nil
}

func (a *api) find(ctx context.Context, id string) (pki.Certificate, error) {
	f, err := pki.ParseFingerprint(id)
	if err != nil {
		return pki.Certificate{}, fault.New(fault.BadRequest, "a certificate's id is its SHA-256 fingerprint: 64 hexadecimal digits").WithField("id").
			WithHint("to find one by serial number, list with ?serial=")
	}
	c, err := a.Store.Certificate(ctx, f)
	if err != nil {
		return pki.Certificate{}, err
	}
	return c, a.visible(principal(ctx), c)
}

// IDInput is the path of one certificate. It is exported so that the library can fill it in where it is embedded.
type IDInput struct {
	ID string `path:"id" doc:"SHA-256 fingerprint, in hexadecimal" maxLength:"128"`
}

func (a *api) getCertificate(ctx context.Context, in *IDInput) (*certificateOutput, error) {
	c, err := a.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &certificateOutput{Body: a.certificate(c)}, nil
}

type serialInput struct {
	Issuer string `path:"issuer" maxLength:"100"`
	Serial string `path:"serial" doc:"In hexadecimal" maxLength:"128"`
}

func (a *api) getCertificateBySerial(ctx context.Context, in *serialInput) (*certificateOutput, error) {
	i, err := a.Issuers.Current().Issuer(in.Issuer)
	if err != nil {
		return nil, err
	}
	s, err := pki.ParseSerialNumber(in.Serial)
	if err != nil {
		return nil, fault.New(fault.BadRequest, "%s", err).WithField("serial")
	}
	c, err := a.Store.CertificateBySerial(ctx, i.ID, s)
	if err != nil {
		return nil, err
	}
	if err := a.visible(principal(ctx), c); err != nil {
		return nil, err
	}
	return &certificateOutput{Body: a.certificate(c)}, nil
}

type downloadInput struct {
	IDInput
	Format string `query:"format" enum:"pem,der,chain" default:"pem" doc:"pem; der; chain: PEM with the issuing certificates, in the order that TLS sends them (without the root)"`
}

// file answers with bytes of a media type.
type file struct {
	ContentType        string `header:"Content-Type"`
	ContentDisposition string `header:"Content-Disposition"`
	Body               []byte
}

func (a *api) downloadCertificate(ctx context.Context, in *downloadInput) (*file, error) {
	c, err := a.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if c.DER == nil {
		return nil, fault.New(fault.NotFound, "the certificate was imported without its contents")
	}
	name := c.Serial.String()
	out := &file{ContentType: mediaPEM, ContentDisposition: `attachment; filename="` + name + `.pem"`}
	out.Body = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER})
	switch in.Format {
	case "der":
		out.ContentType, out.ContentDisposition, out.Body = mediaDER, `attachment; filename="`+name+`.cer"`, c.DER
	case "chain":
		if k := a.Issuers.Current().KeyByInternalID(c.IssuerKeyID); k != nil {
			for _, parent := range k.Chain() {
				if !bytes.Equal(parent.RawSubject, parent.RawIssuer) {
					out.Body = append(out.Body, issuer.EncodePEM(parent)...)
				}
			}
		}
	}
	return out, nil
}

// CertificateQuery says which certificates a list, an export or a campaign has. It is exported so that the library can fill it in
// where it is embedded.
type CertificateQuery struct {
	Issuer       string    `query:"issuer" json:"issuer,omitempty" doc:"Name of the issuer" maxLength:"100"`
	Profile      string    `query:"profile" json:"profile,omitempty" doc:"Name of the profile" maxLength:"100"`
	Status       []string  `query:"status" json:"status,omitempty" enum:"valid,revoked,hold,expired" doc:"Any of these; in an address separated by commas" example:"[\"valid\",\"hold\"]"`
	Text         string    `query:"text" json:"text,omitempty" doc:"Part of the subject or of a SAN, letter case ignored" example:"example.com" maxLength:"256"`
	Serial       string    `query:"serial" json:"serial,omitempty" doc:"Serial number, in hexadecimal" maxLength:"128"`
	Fingerprint  string    `query:"fingerprint" json:"fingerprint,omitempty" doc:"SHA-256 of the certificate, in hexadecimal, with or without colons: its id" maxLength:"128"`
	SPKISHA256   string    `query:"spki_sha256" json:"spki_sha256,omitempty" doc:"SHA-256 of the SubjectPublicKeyInfo, in hexadecimal" maxLength:"128"`
	Requester    string    `query:"requester" json:"requester,omitempty" doc:"Who asked for it, as in token:NAME" maxLength:"200"`
	Protocol     string    `query:"protocol" json:"protocol,omitempty" doc:"Over which protocol it was asked for, as in rest" maxLength:"50"`
	Device       string    `query:"device" json:"device,omitempty" doc:"Identity of the device" maxLength:"256"`
	NotAfterFrom time.Time `query:"not_after_from" json:"not_after_from,omitzero" doc:"Ends at this time or later"`
	NotAfterTo   time.Time `query:"not_after_to" json:"not_after_to,omitzero" doc:"Ends before this time"`
	IssuedFrom   time.Time `query:"issued_from" json:"issued_from,omitzero" doc:"Issued at this time or later"`
	IssuedTo     time.Time `query:"issued_to" json:"issued_to,omitzero" doc:"Issued before this time"`
}

type listInput struct {
	CertificateQuery
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Certificates on a page"`
	Cursor string `query:"cursor" doc:"As the page before gave it in next" maxLength:"512"`
	Count  bool   `query:"count" doc:"Also count all that match, up to 10000"`
}

type listOutput struct {
	Body struct {
		Certificates []Certificate `json:"certificates"`
		Next         string        `json:"next,omitempty" doc:"Cursor of the next page; absent on the last"`
		Count        *int          `json:"count,omitempty" doc:"How many match, if asked for; 10000 means that many or more"`
	}
}

// maxCount is where counting stops.
const maxCount = 10000

// filter turns the query into the store's filter, narrowed to what the principal may see. ok is false when nothing can
// match.
func (a *api) filter(p pki.Principal, in *CertificateQuery) (f store.CertificateFilter, ok bool, err error) {
	f = store.CertificateFilter{
		Text: in.Text, Requester: in.Requester, Protocol: in.Protocol, Device: in.Device,
		NotAfterFrom: in.NotAfterFrom, NotAfterTo: in.NotAfterTo, IssuedFrom: in.IssuedFrom, IssuedTo: in.IssuedTo,
	}
	if in.Serial != "" {
		if f.Serial, err = pki.ParseSerialNumber(in.Serial); err != nil {
			return f, false, fault.New(fault.BadRequest, "%s", err).WithField("serial")
		}
	}
	if in.Fingerprint != "" {
		fingerprint, err := pki.ParseFingerprint(in.Fingerprint)
		if err != nil {
			return f, false, fault.New(fault.BadRequest, "%s", err).WithField("fingerprint")
		}
		f.Fingerprint = &fingerprint
	}
	if in.SPKISHA256 != "" {
		h, err := pki.ParseFingerprint(in.SPKISHA256)
		if err != nil {
			return f, false, fault.New(fault.BadRequest, "%s", err).WithField("spki_sha256")
		}
		hash := [32]byte(h)
		f.SPKIHash = &hash
	}
	snapshot := a.Issuers.Current()
	names := p.Issuers
	if in.Issuer != "" {
		if _, err := snapshot.Issuer(in.Issuer); err != nil {
			return f, false, err
		}
		if auth.MayUse(p, in.Issuer, "") != nil {
			return f, false, nil
		}
		names = []string{in.Issuer}
	}
	for _, n := range names {
		if i, err := snapshot.Issuer(n); err == nil {
			f.IssuerIDs = append(f.IssuerIDs, i.ID)
		}
	}
	if len(names) > 0 && len(f.IssuerIDs) == 0 {
		return f, false, nil
	}
	f.Profiles = p.Profiles
	if in.Profile != "" {
		if auth.MayUse(p, "", in.Profile) != nil {
			return f, false, nil
		}
		f.Profiles = []string{in.Profile}
	}
	if p.Role == pki.RoleEnroller {
		if f.Requester != "" && f.Requester != p.Name {
			return f, false, nil
		}
		f.Requester = p.Name
	}
	a.filterStatus(&f, in.Status)
	return f, true, nil
}

// filterStatus narrows by what the API calls a status, in which time plays a part: valid and expired are both good.
func (a *api) filterStatus(f *store.CertificateFilter, status []string) {
	valid, expired := slices.Contains(status, "valid"), slices.Contains(status, "expired")
	if valid || expired {
		f.Status = append(f.Status, pki.Good)
	}
	if slices.Contains(status, "revoked") {
		f.Status = append(f.Status, pki.Revoked)
	}
	if slices.Contains(status, "hold") {
		f.Status = append(f.Status, pki.OnHold)
	}
	if valid == expired {
		return
	}
	// A certificate is valid through the last second of notAfter.
	now := a.Now().Truncate(time.Second)
	alone := len(f.Status) == 1 // then the window of the list itself, which stores have an index for
	switch {
	case valid && !alone:
		f.GoodFrom = now
	case !alone:
		f.GoodTo = now
	case valid && f.NotAfterFrom.Before(now):
		f.NotAfterFrom = now
	case expired && (f.NotAfterTo.IsZero() || now.Before(f.NotAfterTo)):
		f.NotAfterTo = now
	}
}

func (a *api) listCertificates(ctx context.Context, in *listInput) (*listOutput, error) {
	out := &listOutput{}
	out.Body.Certificates = []Certificate{}
	f, ok, err := a.filter(principal(ctx), &in.CertificateQuery)
	if err != nil {
		return nil, err
	}
	if !ok {
		if in.Count {
			out.Body.Count = new(int)
		}
		return out, nil
	}
	done, err := a.searches.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	page, next, err := a.Store.ListCertificates(ctx, f, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, err
	}
	out.Body.Certificates, out.Body.Next = shown(page, a.certificate), next
	if in.Count {
		n, err := a.Store.CountCertificates(ctx, f, maxCount)
		if err != nil {
			return nil, err
		}
		out.Body.Count = &n
	}
	return out, nil
}

type issueInput struct {
	IdempotencyInput
	Body struct {
		CSR      string     `json:"csr" doc:"PKCS #10 request: PEM, or DER in base64" maxLength:"131072"`
		Profile  string     `json:"profile" doc:"Name of the profile" example:"server" maxLength:"100"`
		Issuer   string     `json:"issuer,omitempty" doc:"Name of the issuer; may be left out when there is only one" maxLength:"100"`
		Subject  *string    `json:"subject,omitempty" doc:"Subject in place of the CSR's (RFC 4514)" example:"CN=www.example.com,O=Example" maxLength:"2000"`
		SANs     []string   `json:"sans,omitempty" doc:"Names in place of the CSR's, none if empty, as in DNS:www.example.com, IP:192.0.2.1, email:..., URI:..., UPN:..., HMN:TYPE/SERIAL" example:"[\"DNS:www.example.com\",\"IP:192.0.2.1\"]" maxItems:"500"`
		Validity string     `json:"validity,omitempty" doc:"How long, as in 90d or 12h; the profile's default if absent" example:"90d" maxLength:"32"`
		NotAfter *time.Time `json:"not_after,omitempty" doc:"The end, in place of validity"`
		Device   string     `json:"device,omitempty" doc:"Identity of the device that will use it" maxLength:"256"`
	}
}

func (a *api) issue(ctx context.Context, in *issueInput) (_ *issuedOutput, err error) {
	asked := false
	defer func() {
		if err != nil && !asked {
			a.CA.Refused(in.Body.Profile, err)
		}
	}()
	p := principal(ctx)
	if in.Body.Device != "" {
		if err := pki.CheckDeviceID(in.Body.Device); err != nil {
			return nil, fault.Wrap(fault.BadRequest, err, "%v", err).WithField("device")
		}
	}
	i, err := a.Issuers.Current().Issuer(in.Body.Issuer)
	if err != nil {
		return nil, err
	}
	if err := auth.MayUse(p, i.Name, in.Body.Profile); err != nil {
		return nil, err
	}
	return a.issueOnce(ctx, func(key *store.Idempotency) (*ca.Issued, error) {
		r, err := a.issueRequest(p, i, in)
		if err != nil {
			return nil, err
		}
		r.RequestID, r.Idempotency = problem.RequestID(ctx), key
		asked = true
		return a.CA.Issue(ctx, r)
	})
}

// issueRequest reads what is asked of an issuer that the principal may use.
func (a *api) issueRequest(p pki.Principal, i *issuer.Issuer, in *issueInput) (r ca.Request, err error) {
	request, err := a.parseCSR(in.Body.CSR)
	if err != nil {
		return r, err
	}
	prof, err := a.CA.Profile(in.Body.Profile)
	if err != nil {
		return r, err
	}
	if prof.IsCA() {
		if err := auth.Require(p, pki.RoleAdministrator, false); err != nil {
			return r, fault.Wrap(fault.Forbidden, err, "CA certificates take an administrator").WithField("profile")
		}
	}
	r = ca.Request{Principal: p, Protocol: "rest", Issuer: i.Name, Profile: in.Body.Profile, CSR: request, Device: in.Body.Device}
	err = override(&r, in.Body.Subject, in.Body.SANs, in.Body.Validity, in.Body.NotAfter)
	return r, err
}

// override puts what a request asks for in so many words in place of what its CSR says. What is nil or empty changes
// nothing, but for sans, which when empty ask for none.
func override(r *ca.Request, subject *string, sans []string, validity string, notAfter *time.Time) (err error) {
	if subject != nil {
		if r.Subject, err = profile.ParseSubject(*subject); err != nil {
			return err
		}
	}
	if sans != nil {
		if r.SANs, err = profile.ParseSANs(sans...); err != nil {
			return err
		}
		if r.SANs == nil {
			r.SANs = []der.GeneralName{}
		}
	}
	if r.Validity, err = parseValidity(validity); err != nil {
		return err
	}
	if notAfter != nil {
		if r.Validity != 0 {
			return fault.New(fault.BadRequest, "validity and not_after exclude each other").WithField("not_after")
		}
		r.NotAfter = notAfter.UTC()
	}
	return nil
}

func (a *api) issued(i *ca.Issued) *issuedOutput {
	out := &issuedOutput{Location: Root + "/certificates/" + i.Record.Fingerprint.String(), Body: a.certificate(i.Record)}
	out.Body.Warnings = i.Warnings
	return out
}

// parseCSR reads a request from JSON's text: PEM, or DER in base64.
func (a *api) parseCSR(text string) (*csr.Request, error) {
	b := []byte(text)
	if !strings.Contains(text, "-----BEGIN") {
		clean := strings.Join(strings.Fields(text), "")
		var err error
		if b, err = base64.StdEncoding.DecodeString(clean); err != nil || len(b) == 0 {
			return nil, fault.New(fault.BadCSR, "the CSR is neither PEM nor DER in base64").WithField("csr").
				WithHint("make one with: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj /CN=... ")
		}
	}
	return a.CSRParser.Parse(b)
}

func parseValidity(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := profile.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fault.New(fault.BadRequest, "%q is not a time such as 90d or 12h", text).WithField("validity")
	}
	return time.Duration(d), nil
}

type renewInput struct {
	IDInput
	IdempotencyInput
	Body struct {
		CSR      string `json:"csr,omitempty" doc:"PKCS #10 request with a new key; the names are those of the old certificate. Absent: the same key" maxLength:"131072"`
		Validity string `json:"validity,omitempty" doc:"How long, as in 90d; the profile's default if absent" maxLength:"32"`
	}
}

func (a *api) renew(ctx context.Context, in *renewInput) (*issuedOutput, error) {
	c, err := a.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return a.renewCertificate(ctx, c, in.Body.CSR, in.Body.Validity, 0)
}

// renewCertificate renews for a life of at most longest, if that is not zero.
func (a *api) renewCertificate(ctx context.Context, c pki.Certificate, text, validity string, longest time.Duration) (*issuedOutput, error) {
	return a.issueOnce(ctx, func(key *store.Idempotency) (*ca.Issued, error) {
		return a.renewFor(ctx, c, text, validity, longest, key)
	})
}

func (a *api) renewFor(ctx context.Context, c pki.Certificate, text, validity string, longest time.Duration, key *store.Idempotency) (*ca.Issued, error) {
	r := ca.RenewRequest{Principal: principal(ctx), RequestID: problem.RequestID(ctx), Protocol: "rest", Certificate: c.Fingerprint, Idempotency: key}
	var err error
	if text != "" {
		if r.CSR, err = a.parseCSR(text); err != nil {
			return nil, err
		}
	}
	if r.Validity, err = parseValidity(validity); err != nil {
		return nil, err
	}
	if longest != 0 && (r.Validity == 0 || r.Validity > longest) {
		r.Validity = longest
	}
	return a.CA.Renew(ctx, r)
}

type revokeInput struct {
	IDInput
	Body struct {
		Reason         string     `json:"reason,omitempty" doc:"unspecified (default), keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn, aACompromise. keyCompromise also blocks the key, and revokes all other certificates for it; more than 1000 take an administrator." example:"superseded" maxLength:"40"`
		InvalidityDate *time.Time `json:"invalidity_date,omitempty" doc:"Since when the key is thought to be compromised"`
	}
}

func (a *api) revoke(ctx context.Context, in *revokeInput) (*certificateOutput, error) {
	reason, err := pki.ParseReason(in.Body.Reason)
	if err != nil {
		return nil, fault.New(fault.BadRevocationReason, "%s", err).WithField("reason")
	}
	r := ca.StatusRequest{Reason: reason}
	if in.Body.InvalidityDate != nil {
		r.InvalidityDate = *in.Body.InvalidityDate
	}
	return a.changeStatus(ctx, in.ID, r, a.CA.Revoke)
}

func (a *api) hold(ctx context.Context, in *IDInput) (*certificateOutput, error) {
	return a.changeStatus(ctx, in.ID, ca.StatusRequest{}, a.CA.Hold)
}

func (a *api) release(ctx context.Context, in *IDInput) (*certificateOutput, error) {
	return a.changeStatus(ctx, in.ID, ca.StatusRequest{}, a.CA.Release)
}

func (a *api) changeStatus(ctx context.Context, id string, r ca.StatusRequest, change func(context.Context, ca.StatusRequest) (pki.Certificate, error)) (*certificateOutput, error) {
	c, err := a.find(ctx, id)
	if err != nil {
		return nil, err
	}
	return a.changeStatusOf(ctx, c, r, change)
}

func (a *api) changeStatusOf(ctx context.Context, c pki.Certificate, r ca.StatusRequest, change func(context.Context, ca.StatusRequest) (pki.Certificate, error)) (*certificateOutput, error) {
	p := principal(ctx)
	// Taking a CA out of service is not an operator's act.
	if p.Role < pki.RoleAdministrator && ca.IsCA(c) {
		return nil, fault.New(fault.Forbidden, "changing the status of a CA's certificate takes an administrator")
	}
	r.Principal, r.RequestID, r.Certificate = p, problem.RequestID(ctx), c.Fingerprint
	r.Known = &c
	if p.Role < pki.RoleAdministrator {
		r.Most = operatorMost
	}
	after, err := change(ctx, r)
	if err != nil {
		return nil, err
	}
	return &certificateOutput{Body: a.certificate(after)}, nil
}

// holder authenticates the holder of the client certificate that the connection proved, for the self-service routes.
// Trust is not a matter of the chain alone: the certificate must be in the store by its whole fingerprint, and in force.
func (a *api) holder(ctx context.Context, r *http.Request) (pki.Principal, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return pki.Principal{}, fault.New(fault.Unauthenticated, "this takes a client certificate").
			WithHint("call the mTLS listener with the certificate and its key; the token routes are for everybody else")
	}
	leaf := r.TLS.PeerCertificates[0]
	c, err := a.Store.Certificate(ctx, fingerprint(leaf.Raw))
	switch {
	case fault.Is(err, fault.NotFound):
		return pki.Principal{}, fault.New(fault.Unauthenticated, "the client certificate was not issued here")
	case err != nil:
		return pki.Principal{}, err
	case c.Revocation != nil && c.Revocation.Status == pki.OnHold:
		return pki.Principal{}, fault.New(fault.Forbidden, "the client certificate is on hold")
	case c.Revocation != nil:
		return pki.Principal{}, fault.New(fault.Forbidden, "the client certificate is revoked")
	case a.Now().After(c.NotAfter):
		return pki.Principal{}, fault.New(fault.Forbidden, "the client certificate ended on %s", c.NotAfter.Format(time.RFC3339)).
			WithHint("ask an operator for a new one")
	case a.Now().Before(c.NotBefore):
		return pki.Principal{}, fault.New(fault.Forbidden, "the client certificate is not valid before %s", c.NotBefore.Format(time.RFC3339))
	case !mayAuthenticate(leaf):
		return pki.Principal{}, fault.New(fault.Forbidden, "the certificate is not for client authentication").
			WithHint("certificates without clientAuth are renewed with an API token: POST %s/certificates/{id}/renew", Root)
	}
	return pki.Principal{Name: "certificate:" + c.Fingerprint.String()}, nil
}
