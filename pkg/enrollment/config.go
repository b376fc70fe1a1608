package enrollment

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/profile"
)

// DefaultPoint is the name of the point that every store has.
const DefaultPoint = "default"

// Config is the settings document of an enrollment point, as the administrator writes it. The zero value of every field
// but Name is its default.
type Config struct {
	// Name is the last part of the point's address: lower-case letters, digits and hyphens, at most 63.
	Name string `json:"name"`
	// Description is for people.
	Description string `json:"description,omitempty"`
	// Disabled refuses every request.
	Disabled bool `json:"disabled,omitempty"`
	// Issuer signs. Default: the only issuing CA.
	Issuer string `json:"issuer,omitempty"`
	// Profile says what the certificates hold. Default: device.
	Profile string `json:"profile,omitempty"`
	// CACertificates is the form of the answer to GetCACert (RFC 8894, Section 4.2): "chain-with-root" (default), the
	// RA's certificate and those of all CAs above it, as the RFC says and strongSwan 5.9 wants; "chain", without the root; or
	// "single", the issuer's certificate alone, which takes the legacy switch issuerKey.
	CACertificates string `json:"caCertificates,omitempty"`
	// Approval has each enrollment wait for a person. Renewals go on by themselves.
	Approval bool `json:"approval,omitempty"`
	// PendingLife is how long a request waits for a person. Default: 7d.
	PendingLife profile.Duration `json:"pendingLife,omitzero"`
	// RetryWindow is how long the same request gets the same certificate again. Default: 1d.
	RetryWindow profile.Duration `json:"retryWindow,omitzero"`
	// RenewalPercent is the last part of a certificate's life in which it is renewed, in hundredths. Default: 50.
	RenewalPercent int `json:"renewalPercent,omitempty"`
	// Legacy are switches for devices that can do nothing better, each with the day at whose end it is off again.
	Legacy map[Switch]Date `json:"legacy,omitempty"`
}

// Switch is something that is refused unless a point's settings allow it for a while.
type Switch string

// The switches.
const (
	// LegacyDES serves clients that encrypt with single DES, against RFC 8894, Section 2.9.
	LegacyDES Switch = "des"
	// LegacyMD5 accepts messages that are signed with MD5, against RFC 8894, Section 2.9.
	LegacyMD5 Switch = "md5"
	// LegacySHA1CSR accepts requests whose own signature is made with SHA-1.
	LegacySHA1CSR Switch = "sha1CSR"
	// LegacySHA1Renewal accepts renewals that are authorised by a signature made with SHA-1 alone (RFC 8894, Section 7.9).
	LegacySHA1Renewal Switch = "sha1Renewal"
	// LegacyIssuerKey lets the issuer's own RSA key decrypt and sign messages, for clients that know no RA.
	LegacyIssuerKey Switch = "issuerKey"
)

// Switches returns every switch.
func Switches() []Switch {
	return []Switch{LegacyDES, LegacyMD5, LegacySHA1CSR, LegacySHA1Renewal, LegacyIssuerKey}
}

// Date is a day in UTC, as in 2027-03-31. The time is not embedded: its MarshalJSON and UnmarshalJSON would go before the
// day's own text.
type Date struct{ Time time.Time } // its first instant

// ParseDate reads a day.
func ParseDate(text string) (Date, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return Date{}, errors.New("a day is written as in 2027-03-31")
	}
	return Date{t}, nil
}

// MarshalText returns the day.
func (d Date) MarshalText() ([]byte, error) { return []byte(d.Time.Format(time.DateOnly)), nil }

// UnmarshalText is ParseDate.
func (d *Date) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDate(string(text))
	return err
}

// End is the first instant after the day.
func (d Date) End() time.Time { return d.Time.AddDate(0, 0, 1) }

// The forms of GetCACert.
const (
	Chain         = "chain"
	ChainWithRoot = "chain-with-root"
	Single        = "single"
)

// What Config's zero values stand for.
const (
	defaultPendingLife    = profile.Duration(7 * 24 * time.Hour)
	defaultRetryWindow    = profile.Duration(24 * time.Hour)
	defaultRenewalPercent = 50
)

// Bounds of settings.
const (
	maxPendingLife = profile.Duration(365 * 24 * time.Hour)
	maxRetryWindow = profile.Duration(30 * 24 * time.Hour)
	// maxLegacy is how far ahead a switch can be set: who needs it longer looks at it again.
	maxLegacy      = 2 * 365 * 24 * time.Hour
	maxConfigBytes = 64 << 10
	maxDescription = 500
)

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ParseConfig reads the JSON of a settings document. Unknown fields, and anything after the object, are refused. The
// result has not been validated; that is for [Config.Validate]. Errors are faults of the kind BadRequest.
func ParseConfig(b []byte) (Config, error) {
	var c Config
	if len(b) > maxConfigBytes {
		return c, fault.New(fault.BadRequest, "the settings have more than %d octets", maxConfigBytes)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return Config{}, fault.Wrap(fault.BadRequest, err, "a value of the wrong type (%s)", e.Value).WithField(e.Field)
		}
		if name, found := strings.CutPrefix(err.Error(), "json: unknown field "); found {
			return Config{}, fault.New(fault.BadRequest, "an enrollment point has no such field").WithField(strings.Trim(name, `"`))
		}
		return Config{}, fault.Wrap(fault.BadRequest, err, "these are not the settings of an enrollment point: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Config{}, fault.New(fault.BadRequest, "something follows the settings' JSON object")
	}
	return c, nil
}

// Validate refuses settings that no point can have. now bounds the end of legacy switches that are set anew; the zero
// time does not. Errors are faults of the kind BadRequest with the field.
func (c Config) Validate(now time.Time) error {
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.BadRequest, format, args...).WithField(field)
	}
	switch {
	case !nameForm.MatchString(c.Name):
		return bad("name", "a point's name has 1 to 63 lower-case letters, digits and hyphens, and no hyphen at either end")
	case c.Name == "cgi-bin":
		return bad("name", "this name is a part of addresses")
	case len(c.Description) > maxDescription:
		return bad("description", "it has more than %d octets", maxDescription)
	case !slices.Contains([]string{"", Chain, ChainWithRoot, Single}, c.CACertificates):
		return bad("caCertificates", "it is %s, %s or %s", Chain, ChainWithRoot, Single)
	case c.PendingLife < 0 || c.PendingLife > maxPendingLife:
		return bad("pendingLife", "it is at most %s", maxPendingLife)
	case c.RetryWindow < 0 || c.RetryWindow > maxRetryWindow:
		return bad("retryWindow", "it is at most %s", maxRetryWindow)
	case c.RenewalPercent < 0 || c.RenewalPercent > 100:
		return bad("renewalPercent", "it is 1 to 100")
	}
	for s, until := range c.Legacy {
		switch {
		case !slices.Contains(Switches(), s):
			return bad("legacy", "there is no switch %q; there are des, md5, sha1CSR, sha1Renewal and issuerKey", cut(string(s), 30))
		case until.Time.IsZero():
			return bad("legacy."+string(s), "a legacy switch has a day on which it ends")
		case !now.IsZero() && until.Time.After(now.Add(maxLegacy)):
			return bad("legacy."+string(s), "a legacy switch ends within two years: look at it again then")
		}
	}
	if _, ok := c.Legacy[LegacyIssuerKey]; c.CACertificates == Single && !ok {
		return bad("caCertificates", "the issuer's certificate alone serves only where its key answers: that is the legacy switch %s", LegacyIssuerKey)
	}
	return nil
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
