package pki

import (
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxDeviceID is the longest id of a device in octets.
const MaxDeviceID = 200

// ErrDeviceID says that a text is no device's id.
var ErrDeviceID = errors.New("a device's id has 1 to 200 octets, no control or invisible characters, no space at either end, and is neither «.» nor «..»")

// CheckDeviceID returns ErrDeviceID for what is no device's id: it must survive in an address and in a table.
func CheckDeviceID(id string) error {
	if id == "" || id == "." || id == ".." || len(id) > MaxDeviceID || !utf8.ValidString(id) || strings.TrimSpace(id) != id ||
		strings.ContainsFunc(id, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf) }) {
		return ErrDeviceID
	}
	return nil
}

// DeviceStatus is what the registry says of a device. The zero value is invalid.
type DeviceStatus int

// The states of a device. One that is expected becomes enrolled with its first certificate. One that is blocked or retired
// gets nothing, whatever it shows; it can be put back into use.
const (
	DeviceExpected DeviceStatus = 1
	DeviceEnrolled DeviceStatus = 2
	DeviceBlocked  DeviceStatus = 3 // stolen or misused: its certificates are revoked
	DeviceRetired  DeviceStatus = 4 // out of use
)

// DeviceStatuses returns every state.
func DeviceStatuses() []DeviceStatus {
	return []DeviceStatus{DeviceExpected, DeviceEnrolled, DeviceBlocked, DeviceRetired}
}

// String returns "expected", "enrolled", "blocked" or "retired".
func (s DeviceStatus) String() string {
	return [...]string{"none", "expected", "enrolled", "blocked", "retired"}[min(max(s, 0), DeviceRetired)]
}

// Served reports whether a device in this state may have certificates.
func (s DeviceStatus) Served() bool { return s == DeviceExpected || s == DeviceEnrolled }

// Device is the registry's record of a device. Its ID is what stands in Certificate.Device and Challenge.Device.
type Device struct {
	ID      string
	Version int // counts from 1 what people and changes of status write; sightings do not count
	Status  DeviceStatus
	Group   string
	Owner   string
	Labels  map[string]string
	// Subject and SANs, when not empty, are exactly those that its certificates must have: in RFC 4514 form, and as in
	// "DNS:a.example.com".
	Subject string
	SANs    []string
	Note    string // for people
	Reason  string // why it is blocked or retired

	CreatedAt time.Time
	CreatedBy string
	ChangedAt time.Time
	ChangedBy string

	FirstSeenAt time.Time // zero: never, as the others
	LastSeenAt  time.Time
	LastSource  string         // network address
	LastPoint   string         // enrollment point
	Protocol    DeviceProtocol // what its client did last

	// The newest certificate; zero before the first.
	Certificate Fingerprint
	IssuerKeyID int64
	Serial      SerialNumber
	NotAfter    time.Time

	// What was refused since the newest certificate.
	Failures        int
	RenewalFailures int // those of them that were renewals
	FailedAt        time.Time
	Failure         string // why, the last time
	Returns         int    // tries to come back with a certificate that has ended

	// Its certificates that were issued up to RevokeUntil are to be revoked for RevokeReason; zero when nothing is left to
	// do. RevokeProfile, when not empty, leaves out those of other profiles.
	RevokeReason  Reason
	RevokeUntil   time.Time
	RevokeProfile string
}

// DeviceProtocol is what a device's client was seen to use. The zero value is a device that was not seen.
type DeviceProtocol struct {
	Message      string `json:"message,omitempty"`       // SCEP's messageType, as in "RenewalReq"
	Digest       string `json:"digest,omitempty"`        // of its signature, as in "SHA-256"
	Cipher       string `json:"cipher,omitempty"`        // of its envelope, as in "AES-128-CBC"
	KeyTransport string `json:"key_transport,omitempty"` // as in "RSAES-OAEP"
	Key          string `json:"key,omitempty"`           // of its newest request, as in "RSA-2048"
	UserAgent    string `json:"user_agent,omitempty"`
}
