package scep

import (
	"bytes"
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
	own        *pki.Certificate // the signer's certificate when it is of ours
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
	info  cms.FailInfo
	text  string
	cause error
	audit bool // somebody should look at it
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

func refuse(info cms.FailInfo, cause error, format string, args ...any) *refusal {
	return &refusal{info: info, text: fmt.Sprintf(format, args...), cause: cause}
}

// hidden is the one refusal for everything that an encrypted request may hide. Each is noted in the audit trail: to note
// only some would take a commit's time for those, and tell them from the others.
func hidden(cause error) *refusal {
	return &refusal{info: cms.BadRequest, text: textRefused, cause: cause, audit: true}
}

// run answers the message.
func (t *transaction) run() (reply, error) {
	content, password, err := t.process()
	if errors.Is(err, errWaiting) {
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
		"source", t.source, "request_id", t.id, "fail_info", r.info, "err", r.Error())
	if r.audit {
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
	return &refusal{info: info, text: text, cause: err, audit: f.Kind == fault.PolicyRefused || f.Kind == fault.BadPublicKey}
}

// clean makes a text fit for a client's terminal and log: a request's own words may be in it.
func clean(s string) string {
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
	t.signerHash = keys.SPKIHash(t.signer.RawSubjectPublicKeyInfo)
	switch t.request.MessageType {
	case cms.PKCSReq, cms.RenewalReq, cms.CertPoll, cms.GetCert, cms.GetCRL:
	default: // RFC 8894, Section 3.2.1.2
		return nil, "", refuse(cms.BadRequest, nil, "the message type is not one that a server answers")
	}
	if len(t.request.Signed.Content) == 0 { // RFC 8894, Section 3.1: never in the clear
		return nil, "", refuse(cms.BadRequest, nil, "the message has no encrypted content")
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
	// From here on a private key is used: see the package's comment.
	messageData, failure := t.envelope.Decrypt(recipient, cms.DecryptOptions{AllowDES: allowDES})
	if failure != nil && !errors.Is(failure, cms.ErrDecryption) {
		return nil, "", visible(failure)
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
		return refuse(cms.BadAlg, err, "%s", text)
	case errors.Is(err, cms.ErrSignature):
		return refuse(cms.BadMessageCheck, err, "%s", text)
	case errors.Is(err, cms.ErrNoRecipient):
		return refuse(cms.BadMessageCheck, err, "the message is encrypted to another certificate: get the CA's certificates again")
	case errors.Is(err, cms.ErrMalformed):
		return refuse(cms.BadRequest, err, "%s", text)
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
	parser := t.h.cfg.CSRParser
	parser.AllowSHA1 = t.legacy(enrollment.LegacySHA1CSR)
	request, err := parser.Parse(messageData)
	if failure != nil {
		err = failure
	}
	if err != nil {
		return nil, "", hidden(err)
	}
	// The request's own signature holds: nobody has changed what was encrypted.
	if request.SignatureAlgorithm == x509.SHA1WithRSA || request.SignatureAlgorithm == x509.ECDSAWithSHA1 {
		t.h.legacy(t, enrollment.LegacySHA1CSR)
	}
	// Two readings: a retry may find that another replica has just answered.
	for try := 1; ; try++ {
		content, password, err := t.decide(request)
		if errors.Is(err, store.ErrStale) && try < 3 {
			continue
		}
		if errors.Is(err, store.ErrChallengeUsed) {
			return nil, "", hidden(err)
		}
		return content, password, err
	}
}

// credential is what authorises a request.
type credential struct {
	challenge *pki.Challenge // one-time
	static    bool
	renewal   bool   // the signature of a certificate of ours
	review    string // why a person has to look at it all the same; empty if nobody has
	password  string // the challenge's text
}

// decide authorises a request and answers it: again, when it was answered before; else with a new certificate.
func (t *transaction) decide(request *csr.Request) ([]byte, string, error) {
	sameKey := t.signerHash == request.SPKIHash
	if t.own == nil && !(sameKey && cms.IsSelfSigned(t.signer)) {
		// RFC 8894, Section 2.3: who captured an envelope could sign it anew otherwise.
		return nil, "", hidden(errors.New("the message is signed neither with the key of the request nor with a certificate of ours"))
	}
	before, err := t.h.cfg.Store.Enrollment(t.ctx, t.point.Name(), t.request.TransactionID, request.SPKIHash)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, "", err
	}
	if err != nil || !t.now.Before(before.ExpiresAt) {
		before = pki.Enrollment{Version: before.Version}
	}
	if repeated, content, password, err := t.again(request, before); repeated {
		return content, password, err
	}
	c, err := t.authorize(request)
	if err != nil {
		return nil, "", err
	}
	password := ""
	if !t.encrypts() {
		switch {
		case c.challenge == nil && c.password == "":
			return nil, "", refuse(cms.BadRequest, nil, "the answer cannot be encrypted: the signing key is not RSA and there is no challenge; enroll again with a one-time challenge")
		case c.challenge == nil:
			// Whoever sees the answer could try all words (RFC 8894, Section 7.3).
			return nil, "", refuse(cms.BadRequest, nil, "the answer cannot be encrypted: the signing key is not RSA, and a static challenge is too weak for it; use a one-time challenge")
		case t.envelope.Cipher.Legacy():
			return nil, "", refuse(cms.BadAlg, nil, "single DES does not protect an answer that is encrypted to a challenge")
		}
		password = c.password
	}
	content, err := t.issue(request, before, c)
	return content, password, err
}

// authorize finds out what gives the request its right.
func (t *transaction) authorize(request *csr.Request) (credential, error) {
	var renewal error
	var by credential // of the renewal, if it has to wait: a challenge is better
	if t.own != nil {
		if renewal = t.mayRenew(); renewal == nil {
			why, err := t.review()
			if err != nil {
				return credential{}, err
			}
			if by = (credential{renewal: true, review: why}); why == "" {
				return by, nil
			}
		} else if t.own.Revocation != nil {
			// What proved the device's identity is void, and a challenge that comes with it may be stolen along with its key.
			return credential{}, renewal
		}
	}
	text := strings.TrimSpace(request.ChallengePassword.Reveal())
	if text == "" { // blank counts as absent
		if t.own != nil {
			return by, renewal
		}
		return credential{}, t.wrongChallenge(nil, errors.New("there is no challenge"))
	}
	approval := ""
	if t.point.Config().Approval {
		approval = "the enrollment point wants approval"
	}
	if t.own != nil && t.signerHash != request.SPKIHash {
		// A challenge in an envelope that somebody else signs: it must be the same device.
		subject, _, err := csr.Names(t.signer)
		if err != nil || !slices.EqualFunc(subject, request.Subject, func(a, b attribute) bool { return a.Type.Equal(b.Type) && a.Value == b.Value }) {
			return credential{}, hidden(errors.New("the certificate that signs is of another device than the request"))
		}
	}
	id, hash, ok := enrollment.ParseChallenge(text)
	if ok {
		c, err := t.h.cfg.Store.Challenge(t.ctx, id)
		switch {
		case fault.Is(err, fault.NotFound):
		case err != nil:
			return credential{}, err
		case t.own != nil && !c.Open(t.now): // likewise
			return by, renewal
		case !enrollment.Matches(c, hash):
			return credential{}, t.wrongChallenge(&c, errors.New("the challenge has another secret"))
		case c.Point != t.point.Name():
			return credential{}, t.wrongChallenge(nil, fmt.Errorf("challenge %s is for another point", c.ID))
		case !c.Open(t.now):
			return credential{}, t.wrongChallenge(nil, fmt.Errorf("challenge %s was used, was revoked or has ended", c.ID))
		default:
			return credential{challenge: &c, password: text, review: approval}, nil
		}
	}
	if t.point.IsStatic(text) {
		return credential{static: true, password: text, review: approval}, nil
	}
	if t.own != nil { // many send the challenge of their first request for ever
		return by, renewal
	}
	return credential{}, t.wrongChallenge(nil, errors.New("the challenge is unknown"))
}

// wrongChallenge refuses, and leaves a mark.
func (t *transaction) wrongChallenge(c *pki.Challenge, cause error) error {
	r := hidden(cause)
	if c != nil {
		t.h.auditor.failChallenge(t.ctx, t.h, t, c.ID)
		r.audit = false // that was its record
	}
	return r
}

// mayRenew says why the signer's certificate does not authorise its own renewal; nil if it does. Some reasons have the
// request wait for a person: see review.
func (t *transaction) mayRenew() error {
	switch old := t.own; {
	case old.Revocation != nil:
		return &refusal{info: cms.BadRequest, text: fmt.Sprintf("the certificate is %s", old.Revocation.Status), audit: true}
	case old.IssuerID != t.issuer.ID || old.Profile != t.point.Profile() && old.Protocol != Protocol:
		return &refusal{info: cms.BadRequest, text: "the certificate is of another issuer or profile than this enrollment point", audit: true}
	case t.now.Before(t.point.RenewableFrom(old.NotBefore, old.NotAfter)):
		return refuse(cms.BadRequest, nil, "the certificate can be renewed from %s on", t.point.RenewableFrom(old.NotBefore, old.NotAfter).Format(time.RFC3339))
	}
	switch t.request.Digest() {
	case crypto.SHA1, crypto.MD5: // RFC 8894, Section 7.9
		if !t.legacy(enrollment.LegacySHA1Renewal) {
			return refuse(cms.BadAlg, nil, "a renewal is signed with SHA-256 or better")
		}
		t.h.legacy(t, enrollment.LegacySHA1Renewal)
	}
	return nil
}

// review returns why a renewal has to wait for a person; empty if it has not.
func (t *transaction) review() (string, error) {
	if t.now.After(t.own.NotAfter) {
		return "its certificate ended on " + t.own.NotAfter.Format(time.RFC3339), nil
	}
	next, err := t.h.cfg.Store.Successor(t.ctx, t.own.Fingerprint)
	switch {
	case fault.Is(err, fault.NotFound):
		return "", nil
	case err != nil:
		return "", err
	}
	return fmt.Sprintf("its certificate was renewed on %s already", next.IssuedAt.Format(time.RFC3339)), nil
}

// issue makes the certificate, or has the request wait.
func (t *transaction) issue(request *csr.Request, before pki.Enrollment, c credential) ([]byte, error) {
	row := pki.Enrollment{
		Point: t.point.Name(), TransactionID: t.request.TransactionID, SPKIHash: request.SPKIHash, Version: before.Version + 1,
		State: pki.EnrollmentIssued, CSRHash: sha256.Sum256(request.DER), SignerHash: t.signerHash, Profile: t.point.Profile(), Source: t.source,
		CreatedAt: t.now, UpdatedAt: t.now, ExpiresAt: t.now.Add(t.point.RetryWindow()),
	}
	grant := ca.Request{Profile: t.point.Profile(), CSR: request}
	if c.challenge != nil {
		row.Challenge, row.Device = c.challenge.ID, c.challenge.Device
		if c.challenge.Profile != "" {
			grant.Profile, row.Profile = c.challenge.Profile, c.challenge.Profile
		}
		var err error
		if grant.Subject, grant.SANs, err = enrollment.Bind(*c.challenge, request.Subject, request.SANs); err != nil {
			return nil, err
		}
	}
	if c.renewal {
		row.Replaces, row.Device = t.own.Fingerprint, t.own.Device
	}
	if c.review != "" {
		return nil, t.wait(request, row, c)
	}
	change := &store.EnrollmentChange{Enrollment: row, UseChallenge: c.challenge != nil}
	issued, err := t.h.grant(t.ctx, t.point, t.issuer, grant, change, t.principal(), t.id, false)
	if err != nil {
		return nil, err
	}
	t.h.log.Info("issued by SCEP", "point", t.point.Name(), "type", t.request.MessageType, "serial", issued.Serial, "subject", issued.Subject,
		"transaction_id", t.request.TransactionID, "source", t.source, "request_id", t.id, "renewal", c.renewal)
	return cms.CertificatesOnly(issued.DER), nil
}

func (t *transaction) principal() pki.Principal {
	return pki.Principal{Name: Protocol + ":" + t.point.Name(), Role: pki.RoleEnroller, Source: t.source}
}

// grant has the certificate made that an enrollment is for.
func (h *Handler) grant(ctx context.Context, point *enrollment.Point, i *issuer.Issuer, r ca.Request, change *store.EnrollmentChange, by pki.Principal, requestID string, decided bool) (pki.Certificate, error) {
	e := &change.Enrollment
	detail := map[string]string{"enrollment_point": point.Name(), "transaction_id": e.TransactionID}
	if e.Challenge != "" {
		detail["challenge"] = e.Challenge
	}
	if e.Replaces != (pki.Fingerprint{}) {
		issued, err := h.cfg.CA.Renew(ctx, ca.RenewRequest{
			Principal: by, RequestID: requestID, Protocol: Protocol, Certificate: e.Replaces, CSR: r.CSR, TransactionID: e.TransactionID,
			Enrollment: change, Detail: detail, Ended: decided,
		})
		if err != nil {
			return pki.Certificate{}, err
		}
		return issued.Record, nil
	}
	r.Principal, r.RequestID, r.Protocol, r.Issuer, r.Device = by, requestID, Protocol, i.Name, e.Device
	r.TransactionID, r.Enrollment, r.Detail = e.TransactionID, change, detail
	issued, err := h.cfg.CA.Issue(ctx, r)
	if err != nil {
		return pki.Certificate{}, err
	}
	return issued.Record, nil
}

// wait keeps a request for a person to decide. It is sealed: it holds the challenge.
func (t *transaction) wait(request *csr.Request, row pki.Enrollment, c credential) error {
	row.ID, row.State, row.Reason, row.ExpiresAt = rand.Text()[:16], pki.EnrollmentPending, c.review, t.now.Add(t.point.PendingLife())
	row.Subject, row.SANs = asked(request)
	sealed, err := t.h.cfg.Sealer.Seal(pki.SecretEnrollment(row.ID), request.DER)
	if err != nil {
		return fmt.Errorf("sealing a request that waits: %w", err)
	}
	p := t.principal()
	err = t.h.cfg.Store.PutEnrollment(t.ctx, store.EnrollmentChange{
		Enrollment: row, UseChallenge: c.challenge != nil, Request: sealed,
		Record: audit.Record{
			Time: t.now, Action: audit.ActionPending, Actor: p.Name, Role: p.Role.String(), Source: t.source, RequestID: t.id, Target: "enrollment/" + row.ID,
			Detail: map[string]string{
				"why": c.review, "subject": row.Subject, "sans": strings.Join(row.SANs, ", "), "transaction_id": row.TransactionID, "challenge": row.Challenge,
			},
		},
	})
	if err != nil {
		return err
	}
	return errWaiting
}

// again answers what was answered before. repeated says that it was, or is refused for good.
func (t *transaction) again(request *csr.Request, before pki.Enrollment) (repeated bool, content []byte, password string, err error) {
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
	text := strings.TrimSpace(request.ChallengePassword.Reveal())
	same, err := t.sameChallenge(request, before, text)
	if err != nil || !same {
		return err != nil, nil, "", err
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
		password = text
	}
	return true, content, password, nil
}

// sameChallenge reports whether a request repeats the one before: the very same, or one with the same challenge.
func (t *transaction) sameChallenge(request *csr.Request, before pki.Enrollment, text string) (bool, error) {
	sum := sha256.Sum256(request.DER)
	if subtle.ConstantTimeCompare(sum[:], before.CSRHash[:]) == 1 {
		return true, nil
	}
	switch {
	case before.Challenge != "":
		id, hash, ok := enrollment.ParseChallenge(text)
		if !ok || id != before.Challenge {
			return false, nil
		}
		c, err := t.h.cfg.Store.Challenge(t.ctx, id)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return false, err
		}
		return err == nil && enrollment.Matches(c, hash), nil
	case before.Replaces != (pki.Fingerprint{}):
		return t.own != nil && t.own.Fingerprint == before.Replaces, nil
	}
	return t.point.IsStatic(text), nil
}

func denied(e pki.Enrollment) error {
	text := "the request was denied"
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return refuse(cms.BadRequest, nil, "%s", text)
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
