package scep

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/cms"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// Protocol is what certificates and audit records say of this front-end.
const Protocol = "scep"

// maxTries is how often a request is decided on that others overtake.
const maxTries = 5

// textRefused is all that a client learns of what is wrong with an encrypted request.
const textRefused = "the request cannot be decrypted, is no valid certificate request, or has no challenge that is accepted here"

// transaction is one message on its way through the server.
type transaction struct {
	h           *Handler
	ctx         context.Context
	point       *enrollment.Point
	issuer      *issuer.Issuer
	authorities []*authority
	by          *authority // signs the answer: whoever the request is encrypted to
	request     *cms.PKIMessage
	source      string
	id          string // of the HTTP request
	now         time.Time

	signer     *x509.Certificate // whose signature holds
	signerHash [32]byte          // SHA-256 of its SubjectPublicKeyInfo
	envelope   *cms.EnvelopedData
	selfSigned bool             // the signer
	own        *pki.Certificate // the signer's certificate when it is of ours

	device      string // whose request it is, once its right is proven; empty: not known
	wrongSecret string // ID of the challenge that the request names, with another secret
	contact     contact
	turn        *turn
	said        *enrollment.WebhookAnswer // by the point's webhook; nil: it was not asked
}

// reply is a CertRep.
type reply struct {
	status  cms.PKIStatus
	message []byte
}

// failed reports whether an answer is a FAILURE, or none.
func (r reply) failed() bool { return r.message == nil || r.status == cms.Failure }

// refusal is a FAILURE: what the client learns, and what only the log does.
type refusal struct {
	reason enrollment.Reason
	info   cms.FailInfo
	text   string
	cause  error
	audit  bool // somebody should look at it
}

// Error is for the log.
func (r *refusal) Error() string {
	if r.cause != nil {
		return r.info.String() + ": " + r.cause.Error()
	}
	return r.info.String() + ": " + r.text
}

// Unwrap returns the cause.
func (r *refusal) Unwrap() error { return r.cause }

func refuse(reason enrollment.Reason, cause error, format string, args ...any) *refusal {
	return &refusal{reason: reason, info: infoOf(reason), text: fmt.Sprintf(format, args...), cause: cause}
}

// infoOf gives a reason its failInfo (RFC 8894, Section 3.2.1.4).
func infoOf(reason enrollment.Reason) cms.FailInfo {
	switch reason {
	case enrollment.ReasonAlgorithm:
		return cms.BadAlg
	case enrollment.ReasonSignature:
		return cms.BadMessageCheck
	}
	return cms.BadRequest
}

// absent refuses what asks for something that is not there.
func absent(cause error, text string) *refusal {
	return &refusal{reason: enrollment.ReasonMalformed, info: cms.BadCertID, text: text, cause: cause}
}

// hidden is the one refusal for everything that an encrypted request may hide. Each is noted in the audit trail: to note
// only some would take a commit's time for those, and tell them from the others.
func hidden(reason enrollment.Reason, cause error) *refusal {
	return &refusal{reason: reason, info: cms.BadRequest, text: textRefused, cause: cause, audit: true}
}

// refused turns a verdict into a refusal.
func refused(v enrollment.Verdict) *refusal {
	if v.Hidden {
		return hidden(v.Reason, errors.New(v.Text))
	}
	r := refuse(v.Reason, v.Err, "%s", v.Text)
	switch v.Reason {
	case enrollment.ReasonNotYet, enrollment.ReasonAlgorithm:
	default:
		r.audit = true
	}
	return r
}

// run answers the message.
func (t *transaction) run() (reply, error) {
	content, password, err := t.process()
	if errors.Is(err, errWaiting) {
		t.note(nil)
		t.h.log.Info("a device's request waits", "point", t.point.Name(), "type", t.request.MessageType, "transaction_id", t.request.TransactionID, "source", t.source, "request_id", t.id)
		return t.sign(cms.PKIMessageConfig{PKIStatus: cms.Pending})
	}
	if err != nil {
		return t.fail(err)
	}
	envelope, err := t.encrypt(content, password)
	if err != nil {
		return t.fail(err)
	}
	t.note(nil)
	return t.sign(cms.PKIMessageConfig{PKIStatus: cms.Success, Envelope: envelope})
}

// errWaiting says that the answer is PENDING.
var errWaiting = errors.New("the request waits")

// fail answers with a FAILURE, unless the fault is ours.
func (t *transaction) fail(err error) (reply, error) {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		if r = refusalOf(err); r == nil {
			return reply{}, err
		}
	}
	t.h.log.Info("a SCEP request was refused", "point", t.point.Name(), "type", known(t.request.MessageType), "transaction_id", t.request.TransactionID,
		"source", t.source, "request_id", t.id, "device", t.device, "reason", r.reason, "fail_info", r.info, "err", r.Error())
	t.note(r)
	t.tellFailure(r)
	switch {
	case t.wrongSecret != "":
		t.h.auditor.failChallenge(t.ctx, t.h, t, t.wrongSecret)
	case r.audit:
		t.h.auditor.record(t.ctx, t.h, t, r)
	}
	return t.sign(cms.PKIMessageConfig{PKIStatus: cms.Failure, FailInfo: r.info, FailInfoText: clean(r.text)})
}

// failInfos gives each kind of fault its failInfo (RFC 8894, Section 3.2.1.4). What is not here is not the client's.
var failInfos = map[fault.Kind]cms.FailInfo{
	fault.BadRequest: cms.BadRequest, fault.BadCSR: cms.BadRequest, fault.BadPublicKey: cms.BadAlg, fault.PolicyRefused: cms.BadRequest,
	fault.Unauthenticated: cms.BadRequest, fault.Forbidden: cms.BadRequest, fault.NotFound: cms.BadCertID, fault.Conflict: cms.BadRequest,
	fault.AlreadyRevoked: cms.BadRequest, fault.BadRevocationReason: cms.BadRequest, fault.RateLimited: cms.BadRequest,
}

// refusalOf returns what a client is told of a fault; nil for those that are ours.
func refusalOf(err error) *refusal {
	info, ok := failInfos[fault.KindOf(err)]
	if !ok {
		return nil
	}
	f := fault.Public(err)
	text := f.Detail
	if f.Hint != "" {
		text += " (" + f.Hint + ")"
	}
	return &refusal{reason: reasonOf(err), info: info, text: text, cause: err, audit: f.Kind == fault.PolicyRefused || f.Kind == fault.BadPublicKey}
}

// reasonOf returns why the authority or the store has refused what the policy allows.
func reasonOf(err error) enrollment.Reason {
	switch {
	case errors.Is(err, store.ErrDeviceRefused):
		return enrollment.ReasonDeviceBlocked
	case errors.Is(err, store.ErrPredecessor):
		return enrollment.ReasonRevoked
	}
	switch f := fault.Public(err); f.Kind {
	case fault.BadPublicKey:
		return enrollment.ReasonKey
	case fault.PolicyRefused, fault.BadCSR:
		if f.Field == "subject" || f.Field == "sans" || f.Field == "profile" { // and not an issuer that cannot issue
			return enrollment.ReasonNames
		}
	}
	return enrollment.ReasonOther
}

// maxText bounds texts in which a request's own words may be: of answers, of records, and for webhooks.
const maxText = 1000

// clean makes a text fit for a client's terminal and log: a request's own words may be in it.
func clean(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// sign makes the CertRep, with the digest of the request (RFC 8894, Section 3.2; some clients know no other).
func (t *transaction) sign(c cms.PKIMessageConfig) (reply, error) {
	c.TransactionID, c.MessageType, c.RecipientNonce = t.request.TransactionID, cms.CertRep, t.request.SenderNonce
	switch digest := t.request.Digest(); digest {
	case crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512:
		c.Digest = digest
	case crypto.MD5: // which nobody signs any more
		c.Digest = crypto.SHA1
	default:
		c.Digest = crypto.SHA256
	}
	message, err := t.by.signer.SignPKIMessage(c)
	if err != nil {
		return reply{}, fmt.Errorf("signing a CertRep: %w", err)
	}
	return reply{status: c.PKIStatus, message: message}, nil
}

// process returns what a SUCCESS carries, and the password to encrypt it to when the signer's key cannot be.
func (t *transaction) process() (content []byte, password string, err error) {
	if t.signer, err = t.request.Verify(cms.VerifyOptions{AllowMD5: t.legacy(enrollment.LegacyMD5)}); err != nil {
		return nil, "", visible(err)
	}
	t.signerHash, t.selfSigned = keys.SPKIHash(t.signer.RawSubjectPublicKeyInfo), cms.IsSelfSigned(t.signer)
	switch t.request.MessageType {
	case cms.PKCSReq, cms.RenewalReq, cms.CertPoll, cms.GetCert, cms.GetCRL:
	default: // RFC 8894, Section 3.2.1.2
		return nil, "", refuse(enrollment.ReasonMalformed, nil, "the message type is not one that a server answers")
	}
	if len(t.request.Signed.Content) == 0 { // RFC 8894, Section 3.1: never in the clear
		return nil, "", refuse(enrollment.ReasonMalformed, nil, "the message has no encrypted content")
	}
	if t.envelope, err = cms.ParseEnvelopedData(t.request.Signed.Content, cms.Limits{MaxBytes: maxBodyBytes}); err != nil {
		return nil, "", visible(err)
	}
	recipients := make([]*cms.Recipient, len(t.authorities))
	for i, a := range t.authorities {
		recipients[i] = a.recipient
	}
	recipient, err := t.envelope.Recipient(recipients...)
	if err != nil {
		return nil, "", visible(err)
	}
	t.by = t.authorities[slices.Index(recipients, recipient)]
	allowDES := t.legacy(enrollment.LegacyDES)
	if t.envelope.Cipher.Legacy() && allowDES {
		t.h.legacy(t, enrollment.LegacyDES)
	}
	if t.request.Digest() == crypto.MD5 {
		t.h.legacy(t, enrollment.LegacyMD5)
	}
	if t.by.record.Number == 0 {
		t.h.legacy(t, enrollment.LegacyIssuerKey)
	}
	if err := t.recognize(); err != nil {
		return nil, "", err
	}
	if asks := t.request.MessageType == cms.PKCSReq || t.request.MessageType == cms.RenewalReq; asks && t.own == nil && !t.selfSigned {
		r := refuse(enrollment.ReasonChallenge, nil, "the certificate that signs the message is neither known here nor self-signed; enroll with a self-signed one and a challenge")
		r.audit = true
		return nil, "", r
	}
	// From here on a private key is used: see the package's comment.
	messageData, failure := t.envelope.Decrypt(recipient, cms.DecryptOptions{AllowDES: allowDES})
	if failure != nil && !errors.Is(failure, cms.ErrDecryption) {
		return nil, "", visible(failure)
	}
	if t.request.MessageType != cms.PKCSReq && t.request.MessageType != cms.RenewalReq && t.own != nil {
		if err := t.served(t.own.Device); err != nil {
			return nil, "", err
		}
	}
	switch t.request.MessageType {
	case cms.CertPoll:
		return t.certPoll(messageData, failure)
	case cms.GetCert:
		content, err = t.getCert(messageData, failure)
		return content, "", err
	case cms.GetCRL:
		content, err = t.getCRL(messageData, failure)
		return content, "", err
	}
	return t.enroll(messageData, failure)
}

func (t *transaction) legacy(s enrollment.Switch) bool { return t.point.Legacy(s, t.now) }

// visible turns what everybody can see of a message into a refusal.
func visible(err error) error {
	text := fault.Public(err).Detail
	switch {
	case errors.Is(err, cms.ErrAlgorithm):
		return refuse(enrollment.ReasonAlgorithm, err, "%s", text)
	case errors.Is(err, cms.ErrSignature):
		return refuse(enrollment.ReasonSignature, err, "%s", text)
	case errors.Is(err, cms.ErrNoRecipient):
		return refuse(enrollment.ReasonSignature, err, "the message is encrypted to another certificate: get the CA's certificates again")
	case errors.Is(err, cms.ErrMalformed):
		return refuse(enrollment.ReasonMalformed, err, "%s", text)
	}
	return err
}

// recognize finds the signer's certificate among ours. A chain that verifies is not enough: the store must have it.
// A certificate that names itself as issuer is none that a device can have from us, and is not looked for: it is what
// every first enrollment is signed with.
func (t *transaction) recognize() error {
	if bytes.Equal(t.signer.RawIssuer, t.signer.RawSubject) {
		return nil
	}
	record, err := t.h.cfg.Store.Certificate(t.ctx, sha256.Sum256(t.signer.Raw))
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	t.own = &record
	return nil
}

// served refuses a device that is blocked or retired, and takes note whose message it is.
func (t *transaction) served(device string) error {
	if device == "" {
		return nil
	}
	t.device = device
	record, err := t.h.cfg.Store.Device(t.ctx, device)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if v := enrollment.Served(device, &record); v != nil {
		return refused(*v)
	}
	return nil
}

// encrypt puts content into an envelope as the request was in one: the same cipher, the same way to the key, and to the
// signer alone, whatever other certificates the message holds.
func (t *transaction) encrypt(content []byte, password string) ([]byte, error) {
	if password == "" {
		return cms.Encrypt(content, t.signer, cms.Encryption{Cipher: t.envelope.Cipher, KeyTransport: t.envelope.KeyTransport(t.by.recipient)})
	}
	return cms.EncryptToPassword(content, []byte(password), cms.PasswordEncryption{Cipher: t.envelope.Cipher})
}

// encrypts reports whether an answer can be encrypted to the signer's key (RFC 8894, Section 2.3).
func (t *transaction) encrypts() bool {
	_, ok := t.signer.PublicKey.(*rsa.PublicKey)
	return ok
}

// enroll answers PKCSReq and RenewalReq.
func (t *transaction) enroll(messageData []byte, failure error) ([]byte, string, error) {
	// SHA-1 is announced, and devices that know no other sign their requests with it too (strongSwan's --digest sha1). It proves
	// that they have the key, no more: what authorises a request is judged by its own digest.
	parser := t.h.cfg.CSRParser
	parser.AllowSHA1, parser.DeferKey = true, true
	request, err := parser.Parse(messageData)
	if failure != nil {
		err = failure
	}
	if err != nil {
		// Whoever times the answers must not learn that it was decrypted: the store is asked as if it had been, and what
		// is unavailable then is so now.
		if _, err := t.h.cfg.Store.Request(t.ctx, t.nobody()); err != nil {
			return nil, "", err
		}
		return nil, "", hidden(enrollment.ReasonChallenge, err)
	}
	// The request's own signature holds: nobody has changed what was encrypted.
	t.contact.key = request.KeyAlgorithm.String()
	// Several readings: another replica may have just answered this request, or another one of the device.
	for try := 1; ; try++ {
		content, password, err := t.decide(request)
		if errors.Is(err, store.ErrStale) && try < maxTries {
			continue
		}
		if errors.Is(err, store.ErrChallengeUsed) {
			return nil, "", hidden(enrollment.ReasonChallenge, err)
		}
		return content, password, err
	}
}

// nobody asks the store about a request that there is not: one with a challenge that nobody has, by a key that nobody has.
func (t *transaction) nobody() store.RequestQuery {
	q := store.RequestQuery{Point: t.point.Name(), TransactionID: t.request.TransactionID, Challenge: strings.Repeat("A", 10)}
	if q.KeyDevices = !t.legacy(enrollment.LegacySharedKeys); t.own != nil {
		q.Device = t.own.Device
	}
	return q
}

// decide applies the policy to a request and answers it: again, when it was answered before; else with a new certificate.
func (t *transaction) decide(request *csr.Request) ([]byte, string, error) {
	facts, before, err := t.lookUp(request)
	if err != nil {
		return nil, "", err
	}
	if repeated, content, password, err := t.again(request, before, facts); repeated {
		return content, password, err
	}
	v, err := t.h.settle(t.ctx, facts, func(v enrollment.Verdict) (enrollment.WebhookAnswer, error) { return t.ask(request, facts, v) })
	if err != nil {
		return nil, "", err
	}
	t.device = v.Device
	if facts.Signer != nil && !facts.Signer.Void {
		t.device = cmp.Or(v.Device, facts.Signer.Device)
	}
	t.contact.known = facts.Devices[t.device]
	if v.Outcome == enrollment.Refuse {
		return nil, "", refused(v)
	}
	if request.KeyErr != nil { // who may not ask is not told (docs/policy.md, 5)
		return nil, "", request.KeyErr
	}
	t.wrongSecret = "" // of no account: something else has authorised the request
	if v.Renewal && enrollment.WeakDigest(t.request.Digest()) {
		t.h.legacy(t, enrollment.LegacySHA1Renewal)
	}
	password := ""
	if !t.encrypts() {
		switch {
		case v.Credential == enrollment.BySignature && !v.UseChallenge:
			return nil, "", refuse(enrollment.ReasonKey, nil, "the answer cannot be encrypted: the signing key is not RSA and there is no challenge; enroll again with a one-time challenge")
		case !v.UseChallenge:
			// Whoever sees the answer could try all words (RFC 8894, Section 7.3).
			return nil, "", refuse(enrollment.ReasonKey, nil, "the answer cannot be encrypted: the signing key is not RSA, and a static challenge is too weak for it; use a one-time challenge")
		case t.envelope.Cipher.Legacy():
			return nil, "", refuse(enrollment.ReasonAlgorithm, nil, "single DES does not protect an answer that is encrypted to a challenge")
		}
		password = request.ChallengePassword.Reveal() // octet for octet: the device has no other
	}
	content, err := t.issue(request, before, facts, v)
	return content, password, err
}

// issue makes the certificate, or has the request wait.
func (t *transaction) issue(request *csr.Request, before pki.Enrollment, facts *enrollment.Facts, v enrollment.Verdict) ([]byte, error) {
	row := pki.Enrollment{
		Point: t.point.Name(), TransactionID: t.request.TransactionID, SPKIHash: request.SPKIHash, Version: before.Version + 1,
		State: pki.EnrollmentIssued, CSRHash: sha256.Sum256(request.DER), SignerHash: t.signerHash, Profile: v.Profile, Device: v.Device, Source: t.source,
		CreatedAt: t.now, UpdatedAt: t.now, ExpiresAt: t.now.Add(t.point.RetryWindow()),
	}
	row.Subject, row.SANs = asked(request)
	if v.UseChallenge {
		row.Challenge = facts.OneTime.ID
	}
	if v.Renewal {
		row.Replaces = t.own.Fingerprint
	}
	if facts.Webhook != nil && facts.Webhook.Allow {
		var err error
		if row.Overrides, err = facts.Webhook.Overrides(); err != nil {
			return nil, err
		}
	}
	change := &store.EnrollmentChange{Enrollment: row, UseChallenge: v.UseChallenge}
	if waiting(before) != "" {
		change.Notifications = t.h.notifications(t.point, t.now, failureOf(before, enrollment.ReasonSuperseded, "the device has sent another request in place of the one that waited"))
	}
	allowed := grant{
		point: t.point, issuer: t.issuer, request: request, change: change, verdict: v, newest: newest(facts, v), by: t.principal(), requestID: t.id, before: before,
	}
	if v.Outcome == enrollment.Wait {
		if err := t.h.judge(t.ctx, allowed); err != nil {
			return nil, err
		}
		return nil, t.wait(request, change, before, v.Text)
	}
	if v.Return {
		if err := t.countReturn(v); err != nil {
			return nil, err
		}
	}
	if err := t.h.introduce(t.ctx, facts, v, t.principal(), t.id); err != nil {
		return nil, err
	}
	issued, err := t.h.grant(t.ctx, allowed)
	if err != nil {
		return nil, err
	}
	t.contact.issued = true
	t.h.log.Info("issued by SCEP", "point", t.point.Name(), "type", t.request.MessageType, "serial", issued.Serial, "subject", issued.Subject, "device", v.Device,
		"transaction_id", t.request.TransactionID, "source", t.source, "request_id", t.id, "renewal", v.Renewal, "return", v.Return)
	return cms.CertificatesOnly(issued.DER), nil
}

// countReturn notes that a device tries to come back with a certificate that has ended. It is durable before the answer:
// a device that fails again and again is one for a person to look at.
func (t *transaction) countReturn(v enrollment.Verdict) error {
	p := t.principal()
	t.h.log.Warn("a certificate that has ended is renewed, within the point's grace", "point", t.point.Name(), "device", v.Device, "serial", t.own.Serial,
		"not_after", t.own.NotAfter, "source", t.source, "request_id", t.id)
	if v.Device != "" {
		c := t.sighting(nil)
		c.Return = true
		if err := t.h.cfg.Store.NoteContacts(t.ctx, []store.Contact{c}, nil); err != nil {
			return err
		}
	}
	return t.h.cfg.Store.RecordAudit(t.ctx, audit.Record{
		Time: t.now, Action: audit.ActionReturn, Actor: p.Name, Role: p.Role.String(), Source: t.source, RequestID: t.id, Target: "certificate/" + t.own.Fingerprint.String(),
		Detail: map[string]string{
			"enrollment_point": t.point.Name(), "device": v.Device, "transaction_id": t.request.TransactionID, "not_after": t.own.NotAfter.Format(time.RFC3339),
		},
	})
}

func (t *transaction) principal() pki.Principal {
	return pki.Principal{Name: Protocol + ":" + t.point.Name(), Role: pki.RoleEnroller, Source: t.source}
}

// newest returns what the verdict took for the newest certificate of the device; nil when it did not matter.
func newest(f *enrollment.Facts, v enrollment.Verdict) *pki.Fingerprint {
	if v.Device == "" || !v.Renewal && f.Point.Replacement() == enrollment.ReplaceSupersede {
		return nil
	}
	if d := f.Devices[v.Device]; d != nil {
		return &d.Certificate
	}
	return new(pki.Fingerprint)
}

// grant is a certificate that a verdict allows.
type grant struct {
	point     *enrollment.Point
	issuer    *issuer.Issuer
	request   *csr.Request
	change    *store.EnrollmentChange
	verdict   enrollment.Verdict
	newest    *pki.Fingerprint
	by        pki.Principal
	requestID string
	before    pki.Enrollment // whose row is written over
}

// grant has the certificate made. ErrStale when the verdict was overtaken.
func (h *Handler) grant(ctx context.Context, g grant) (pki.Certificate, error) {
	e, v := &g.change.Enrollment, &g.verdict
	detail := map[string]string{"enrollment_point": g.point.Name(), "transaction_id": e.TransactionID, "by": string(v.Credential)}
	if e.Challenge != "" {
		detail["challenge"] = e.Challenge
	}
	if waited := waiting(g.before); waited != "" {
		detail["in_place_of"] = waited
	}
	decision := decisionOf(*e)
	if decision != "" {
		detail["webhook"] = decision
	}
	told := false
	notify := func(c pki.Certificate) []pki.Notification {
		ns := h.notifications(g.point, h.cfg.Clock.Now(), successOf(*e, v.Device, c))
		told = len(ns) > 0
		return ns
	}
	var issued *ca.Issued
	var err error
	if v.Renewal {
		r := g.renewal()
		r.Enrollment, r.Notify, r.Detail = g.change, notify, detail
		issued, err = h.cfg.CA.Renew(ctx, r)
	} else {
		r := g.enrollment()
		r.Enrollment, r.Notify, r.Detail = g.change, notify, detail
		issued, err = h.cfg.CA.Issue(ctx, r)
	}
	if err != nil {
		return pki.Certificate{}, err
	}
	h.wake(told || len(g.change.Notifications) > 0)
	if v.Revoke && h.cfg.Registry != nil {
		h.cfg.Registry.Wake()
	}
	return issued.Record, nil
}

// enrollment is what the authority is asked for, unless it is a renewal.
func (g *grant) enrollment() ca.Request {
	v := &g.verdict
	return ca.Request{
		Principal: g.by, Source: g.change.Enrollment.Source, RequestID: g.requestID, Protocol: Protocol, Issuer: g.issuer.Name, Profile: v.Profile, CSR: g.request, Subject: v.Subject, SANs: v.SANs,
		MaxValidity: v.MaxValidity, Device: v.Device, SupersedeDevice: v.Revoke, DeviceCertificate: g.newest, TransactionID: g.change.Enrollment.TransactionID,
	}
}

// renewal is what the authority is asked for when it is one.
func (g *grant) renewal() ca.RenewRequest {
	v, e := &g.verdict, &g.change.Enrollment
	return ca.RenewRequest{
		Principal: g.by, Source: e.Source, RequestID: g.requestID, Protocol: Protocol, Certificate: e.Replaces, CSR: g.request, TransactionID: e.TransactionID,
		MaxValidity: v.MaxValidity, Device: v.Device, DeviceCertificate: g.newest,
		Ended: v.Return || v.Outcome == enrollment.Wait || v.Credential == enrollment.ByPerson,
	}
}

// judge refuses a request that is to wait, and would get nothing from whoever approves it.
func (h *Handler) judge(ctx context.Context, g grant) error {
	if g.verdict.Renewal {
		return h.cfg.CA.JudgeRenewal(ctx, g.renewal())
	}
	return h.cfg.CA.Judge(g.enrollment())
}

// waiting returns the id of a request that nobody decides on any more, since the device has sent another one under the same
// transactionID; empty if there was none.
func waiting(before pki.Enrollment) string {
	if before.State != pki.EnrollmentPending {
		return ""
	}
	return before.ID
}

// wait keeps a request for a person to decide. It is sealed: it holds the challenge.
func (t *transaction) wait(request *csr.Request, change *store.EnrollmentChange, before pki.Enrollment, why string) error {
	row := &change.Enrollment
	row.ID, row.State, row.Reason, row.ExpiresAt = rand.Text()[:16], pki.EnrollmentPending, why, t.now.Add(t.point.PendingLife())
	var err error
	if change.Request, err = t.h.cfg.Sealer.Seal(pki.SecretEnrollment(row.ID), request.DER); err != nil {
		return fmt.Errorf("sealing a request that waits: %w", err)
	}
	p := t.principal()
	change.Record = audit.Record{
		Time: t.now, Action: audit.ActionPending, Actor: p.Name, Role: p.Role.String(), Source: t.source, RequestID: t.id, Target: "enrollment/" + row.ID,
		Detail: map[string]string{
			"why": why, "subject": row.Subject, "sans": strings.Join(row.SANs, ", "), "transaction_id": row.TransactionID, "challenge": row.Challenge,
			"device": row.Device, "webhook": decisionOf(*row),
		},
	}
	if waited := waiting(before); waited != "" {
		change.Record.Detail["in_place_of"] = waited
	}
	if err := t.h.cfg.Store.PutEnrollment(t.ctx, *change); err != nil {
		return err
	}
	t.h.wake(len(change.Notifications) > 0)
	return errWaiting
}

// again answers what was answered before. repeated says that it was, or is refused for good.
func (t *transaction) again(request *csr.Request, before pki.Enrollment, facts *enrollment.Facts) (repeated bool, content []byte, password string, err error) {
	switch before.State {
	case pki.EnrollmentIssued:
		// Signed by what it brought, or with another challenge, it is a request for another certificate.
		if before.SignerHash != t.signerHash || t.own != nil && t.own.Fingerprint == before.Issued {
			return false, nil, "", nil
		}
	case pki.EnrollmentPending, pki.EnrollmentDenied:
		if before.SignerHash != t.signerHash {
			return false, nil, "", nil
		}
	default:
		return false, nil, "", nil
	}
	if !t.sameChallenge(request, before, facts) {
		return false, nil, "", nil
	}
	if err := t.served(before.Device); err != nil {
		return true, nil, "", err
	}
	switch before.State {
	case pki.EnrollmentPending:
		return true, nil, "", errWaiting
	case pki.EnrollmentDenied:
		return true, nil, "", denied(before)
	}
	content, err = t.certificate(before.Issued)
	if err != nil || content == nil {
		return err != nil, nil, "", err
	}
	if !t.encrypts() {
		if before.Challenge == "" {
			return false, nil, "", nil // decide says why there is no answer
		}
		password = request.ChallengePassword.Reveal()
	}
	return true, content, password, nil
}

// sameChallenge reports whether a request repeats the one before: the very same, or one with the same challenge for the same
// names; or one to renew the same certificate, whose names stay.
func (t *transaction) sameChallenge(request *csr.Request, before pki.Enrollment, facts *enrollment.Facts) bool {
	sum := sha256.Sum256(request.DER)
	if subtle.ConstantTimeCompare(sum[:], before.CSRHash[:]) == 1 {
		return true
	}
	if before.Challenge != "" && (facts.OneTime == nil || facts.OneTime.ID != before.Challenge) {
		return false
	}
	if before.Replaces != (pki.Fingerprint{}) {
		return t.own != nil && t.own.Fingerprint == before.Replaces
	}
	subject, sans := asked(request)
	return (before.Challenge != "" || facts.Static) && subject == before.Subject && slices.Equal(sans, before.SANs)
}

func denied(e pki.Enrollment) error {
	text := "the request was denied"
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return refuse(enrollment.ReasonDenied, nil, "%s", text)
}

// certificate returns the content of a SUCCESS with a certificate that was issued before; nil when it is not good any more.
func (t *transaction) certificate(f pki.Fingerprint) ([]byte, error) {
	c, err := t.h.cfg.Store.Certificate(t.ctx, f)
	switch {
	case fault.Is(err, fault.NotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case c.Revocation != nil || t.now.After(c.NotAfter) || len(c.DER) == 0:
		return nil, nil
	}
	return cms.CertificatesOnly(c.DER), nil
}
