package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/fault"
)

// Version is that of the documents. A receiver refuses another.
const Version = 1

// The kinds of events.
const (
	TypeRequest = "request" // a device asks for a certificate: the answer is an Answer
	TypeSuccess = "success" // it has one
	TypeFailure = "failure" // it was refused
)

// Event is what a receiver is sent. The empty value of a field is left out.
type Event struct {
	Version int       `json:"version"`
	Type    string    `json:"type"`
	ID      string    `json:"id"` // the same when the event is sent again
	Time    time.Time `json:"time"`

	Point         string `json:"point"`
	Protocol      string `json:"protocol"`
	TransactionID string `json:"transaction_id,omitempty"`
	Source        string `json:"source,omitempty"` // network address of the device, or of a proxy before it

	// Decision is, in an event that follows one of the type request, the ID of that.
	Decision string   `json:"decision,omitempty"`
	Request  *Request `json:"request,omitempty"`
	Device   *Device  `json:"device,omitempty"`
	// Renews is the certificate with which the device has signed the request.
	Renews *Certificate `json:"renews,omitempty"`

	Certificate *Certificate `json:"certificate,omitempty"` // of the type success
	Reason      string       `json:"reason,omitempty"`      // of the type failure: one of few words
	Detail      string       `json:"detail,omitempty"`      // of the type failure: for people
}

// Request is what a device asks for.
type Request struct {
	Message string `json:"message"` // SCEP's messageType, as in "PKCSReq"
	// CSR is the request in PEM. It is left out when it holds a challenge that is not the receiver's to know.
	CSR       string   `json:"csr,omitempty"`
	PublicKey string   `json:"public_key"` // in PEM
	Key       string   `json:"key"`        // as in "rsa-2048"
	Subject   string   `json:"subject"`    // in RFC 4514 form
	SANs      []string `json:"sans"`       // as in "DNS:a.example.com"
	Profile   string   `json:"profile"`
	// ChallengeKind is "one-time", "static", "webhook", or "none".
	ChallengeKind string `json:"challenge_kind"`
	// Challenge is the text, of the kind webhook alone: the receiver is to know it.
	Challenge string `json:"challenge,omitempty"`
}

// Device is what is known of the device. Whether it is the one that asks, a challenge or a signature says, or the receiver.
type Device struct {
	ID         string            `json:"id"`
	Registered bool              `json:"registered"` // the registry has it; the fields below are of the registry
	Status     string            `json:"status,omitempty"`
	Group      string            `json:"group,omitempty"`
	Owner      string            `json:"owner,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Certificate is one of ours.
type Certificate struct {
	Serial      string    `json:"serial"`      // hexadecimal
	Fingerprint string    `json:"fingerprint"` // SHA-256, hexadecimal
	Subject     string    `json:"subject"`
	SANs        []string  `json:"sans"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	PEM         string    `json:"pem,omitempty"`
}

// Decision is what a receiver answers to an event of the type request.
type Decision string

// The decisions.
const (
	Allow   Decision = "allow"
	Deny    Decision = "deny"
	Pending Decision = "pending" // a person decides
)

// Answer is a receiver's answer. What it says of the certificate narrows what the point and the profile allow, and never
// widens it.
type Answer struct {
	Decision Decision `json:"decision"`
	Reason   string   `json:"reason,omitempty"` // for people: of deny and pending
	Device   string   `json:"device,omitempty"` // which device it is
	Group    string   `json:"group,omitempty"`  // in the registry's record of a new device
	// Subject and SANs are exactly those that the certificate is to have.
	Subject  string            `json:"subject,omitempty"`
	SANs     []string          `json:"sans,omitempty"`
	Validity document.Duration `json:"validity,omitzero"` // at most the profile's
}

// Bounds of an answer.
const (
	maxAnswerBytes = 64 << 10
	maxReason      = 500
	maxText        = 200
	maxGroup       = 100 // as the registry's
	maxName        = 2000
	maxSANs        = 100
	minValidity    = document.Duration(time.Minute)
)

// ParseAnswer reads an answer. What it does not know it refuses: an override whose name is misspelt would otherwise be
// none. Errors are faults of the kind BadRequest with the field.
func ParseAnswer(b []byte) (Answer, error) {
	if len(b) > maxAnswerBytes {
		return Answer{}, fault.New(fault.BadRequest, "the answer has more than %d octets", maxAnswerBytes)
	}
	if !utf8.Valid(b) {
		return Answer{}, fault.New(fault.BadRequest, "the answer is not UTF-8")
	}
	a, err := document.Parse[Answer](b, "answer")
	if err != nil {
		return Answer{}, err
	}
	bad := func(field, format string, args ...any) (Answer, error) {
		return Answer{}, fault.New(fault.BadRequest, format, args...).WithField(field)
	}
	switch {
	case a.Decision != Allow && a.Decision != Deny && a.Decision != Pending:
		return bad("decision", "it is allow, deny or pending")
	case len(a.Reason) > maxReason:
		return bad("reason", "it has more than %d octets", maxReason)
	case len(a.SANs) > maxSANs:
		return bad("sans", "it has more than %d entries", maxSANs)
	case a.Validity != 0 && a.Validity < minValidity:
		return bad("validity", "it is at least %s", minValidity)
	}
	type field struct {
		name, value string
		limit       int
	}
	fields := []field{{"device", a.Device, maxText}, {"group", a.Group, maxGroup}, {"subject", a.Subject, maxName}}
	for i, name := range a.SANs {
		fields = append(fields, field{fmt.Sprintf("sans[%d]", i), name, maxName})
	}
	for _, f := range fields {
		if len(f.value) > f.limit || strings.TrimSpace(f.value) != f.value || strings.ContainsFunc(f.value, unicode.IsControl) {
			return bad(f.name, "it has at most %d octets, no control characters, and no space at either end", f.limit)
		}
	}
	a.Reason = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, a.Reason)
	return a, nil
}

// SignatureHeader is the header that authenticates a message.
const SignatureHeader = "Certwright-Signature"

// Sign returns the value of SignatureHeader: "t=", the time in Unix seconds, and for each secret ",v1=" and the hexadecimal
// HMAC-SHA256 of the time, a full stop and the body. There are two while one secret takes the place of another.
func Sign(secrets [][]byte, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	var b strings.Builder
	b.WriteString("t=" + t)
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(t + "."))
		mac.Write(body)
		b.WriteString(",v1=" + hex.EncodeToString(mac.Sum(nil)))
	}
	return b.String()
}
