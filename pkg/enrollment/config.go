package enrollment

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/document"
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
	// Subject is what the certificates' subject must be, as in "CN={device},OU={group},O=Example". The registry of devices
	// says what {device}, {group}, {owner} and {label:NAME} are; a request whose device lacks one of them is refused.
	// Default: what the challenge, the device's record and the profile let be.
	Subject string `json:"subject,omitempty"`
	// SANs are likewise what their subject alternative names must be, as in "DNS:{device}.example.com".
	SANs []string `json:"sans,omitempty"`
	// Device is how the point knows devices.
	Device DeviceRules `json:"device,omitzero"`
	// Challenges are the kinds that let a device in. Default: one-time, and static where one is set.
	Challenges []ChallengeKind `json:"challenges,omitempty"`
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
	// Renewal is how a certificate is renewed by its own signature.
	Renewal RenewalRules `json:"renewal,omitzero"`
	// Return is what becomes of a device whose certificate has ended.
	Return ReturnRules `json:"return,omitzero"`
	// Replacement is what becomes of the certificates of a device that enrolls anew while they are good. Default: supersede.
	Replacement Replacement `json:"replacement,omitempty"`
	// Limits bound how many messages the point takes.
	Limits LimitRules `json:"limits,omitzero"`
	// Webhook is another system that decides on requests, or is told of them.
	Webhook *WebhookRules `json:"webhook,omitempty"`
	// Legacy are switches for devices that can do nothing better, each with the day at whose end it is off again.
	Legacy map[Switch]Date `json:"legacy,omitempty"`
}

// ChallengeKind is a kind of challenge.
type ChallengeKind string

// The kinds of challenges.
const (
	ChallengeOneTime ChallengeKind = "one-time"
	ChallengeStatic  ChallengeKind = "static"
	ChallengeWebhook ChallengeKind = "webhook" // another system knows it
)

// DeviceRules are how a point knows devices.
type DeviceRules struct {
	// Identity is what in a request names its device when its challenge does not. Default: none.
	Identity Identity `json:"identity,omitempty"`
	// Registered serves only devices that are in the registry. Default: a device comes into it with its first challenge or
	// certificate.
	Registered bool `json:"registered,omitempty"`
}

// Identity is what in a request names its device.
type Identity string

// The identities. The empty one is IdentityNone.
const (
	IdentityNone         Identity = "none"
	IdentityCommonName   Identity = "commonName"
	IdentitySerialNumber Identity = "serialNumber" // the attribute of the subject
	IdentityDNSName      Identity = "dnsName"      // the first one
	IdentityURI          Identity = "uri"          // the first one
)

// RenewalRules are how a certificate is renewed by its own signature.
type RenewalRules struct {
	// Percent is the last part of a certificate's life in which it is renewed, in hundredths. Default: 50.
	Percent int `json:"percent,omitempty"`
	// Challenge asks for a one-time challenge beside the signature.
	Challenge bool `json:"challenge,omitempty"`
	// NewKey asks for another key than the certificate's.
	NewKey bool `json:"newKey,omitempty"`
}

// ReturnPolicy is what becomes of a device that comes back with a certificate that has ended, and was never revoked.
type ReturnPolicy string

// The policies. The empty one is ReturnPending.
const (
	ReturnPending ReturnPolicy = "pending" // a person decides
	ReturnGrace   ReturnPolicy = "grace"   // it is renewed within a time of grace; a person decides after it
	ReturnRefuse  ReturnPolicy = "refuse"  // it needs a new challenge
)

// ReturnRules are what becomes of a device whose certificate has ended. The fields but Policy are for the policy grace.
type ReturnRules struct {
	Policy ReturnPolicy `json:"policy,omitempty"`
	// Grace is how long after its end a certificate is renewed: at most 90d. Default: 30d.
	Grace profile.Duration `json:"grace,omitzero"`
	// Attempts is how often a device may try with the same certificate; after that a person decides. Default: 3.
	Attempts int `json:"attempts,omitempty"`
	// Validity is the life of the first certificate, or the profile's if that is shorter. Default: 7d.
	Validity profile.Duration `json:"validity,omitzero"`
	// NewKey asks for another key than the certificate's.
	NewKey bool `json:"newKey,omitempty"`
}

// Replacement is what becomes of a device's good certificates when it enrolls anew, by a challenge.
type Replacement string

// The replacements. The empty one is ReplaceSupersede.
const (
	ReplaceSupersede Replacement = "supersede" // they stay good, and cannot be renewed any more
	ReplaceRevoke    Replacement = "revoke"    // they are revoked as superseded
	ReplacePending   Replacement = "pending"   // a person decides
	ReplaceRefuse    Replacement = "refuse"    // the device is refused
)

// LimitRules bound how many messages a point takes. Renewals that a good certificate of ours signs are never held up by
// what others send.
type LimitRules struct {
	// PerMinute is how many messages the point takes a minute, on each replica. Default: as many as come.
	PerMinute int `json:"perMinute,omitempty"`
	// Burst is how many it takes at once. Default: those of a minute.
	Burst int `json:"burst,omitempty"`
	// FailuresPerMinute is how many refusals a network address is told before it has to wait. Default: 120.
	FailuresPerMinute int `json:"failuresPerMinute,omitempty"`
}

// Switch is something that is refused unless a point's settings allow it for a while.
type Switch string

// The switches.
const (
	// LegacyDES serves clients that encrypt with single DES, against RFC 8894, Section 2.9.
	LegacyDES Switch = "des"
	// LegacyMD5 accepts messages that are signed with MD5, against RFC 8894, Section 2.9.
	LegacyMD5 Switch = "md5"
	// LegacySHA1Renewal accepts renewals that are authorised by a signature made with SHA-1 alone (RFC 8894, Section 7.9).
	LegacySHA1Renewal Switch = "sha1Renewal"
	// LegacyIssuerKey lets the issuer's own RSA key decrypt and sign messages, for clients that know no RA.
	LegacyIssuerKey Switch = "issuerKey"
	// LegacySharedKeys lets several devices have certificates for one key.
	LegacySharedKeys Switch = "sharedKeys"
)

// Switches returns every switch.
func Switches() []Switch {
	return []Switch{LegacyDES, LegacyMD5, LegacySHA1Renewal, LegacyIssuerKey, LegacySharedKeys}
}

// Date is a day in UTC, as in 2027-03-31. The time is not embedded: its MarshalJSON and UnmarshalJSON would go before the
// day's own text.
type Date struct{ Time time.Time } // its first instant

var errDay = errors.New("a day is written as in 2027-03-31")

// ParseDate reads a day.
func ParseDate(text string) (Date, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return Date{}, errDay
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
	defaultPendingLife       = 7 * document.Day
	defaultRetryWindow       = document.Day
	defaultRenewalPercent    = 50
	defaultGrace             = 30 * document.Day
	defaultReturnAttempts    = 3
	defaultReturnValidity    = 7 * document.Day
	defaultFailuresPerMinute = 120
)

// Bounds of settings.
const (
	maxPendingLife = 365 * document.Day
	maxRetryWindow = 30 * document.Day
	maxGrace       = 90 * document.Day
	maxAttempts    = 100
	maxPerMinute   = 1_000_000
	maxSANs        = 100
	// maxLegacy is how far ahead a switch can be set: who needs it longer looks at it again.
	maxLegacy      = 2 * 365 * 24 * time.Hour
	maxConfigBytes = 64 << 10
	maxDescription = 500
)

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ParseConfig reads the JSON of a settings document. Unknown and repeated fields, and anything after the object, are
// refused. The result has not been validated; that is for [Config.Validate]. Errors are faults of the kind BadRequest that
// name the field.
func ParseConfig(b []byte) (Config, error) {
	if len(b) > maxConfigBytes {
		return Config{}, fault.New(fault.BadRequest, "the settings have more than %d octets", maxConfigBytes)
	}
	c, err := document.Parse[Config](b, "enrollment point")
	if errors.Is(err, errDay) {
		return Config{}, fault.Wrap(fault.BadRequest, err, "%v", errDay).WithField("legacy")
	}
	return c, err
}

// ReadConfig is ParseConfig for a document that the store has kept: what older releases wrote means what it meant.
func ReadConfig(b []byte) (Config, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil || fields["renewalPercent"] == nil {
		return ParseConfig(b)
	}
	percent := fields["renewalPercent"]
	delete(fields, "renewalPercent")
	if fields["renewal"] == nil {
		fields["renewal"] = slices.Concat([]byte(`{"percent":`), percent, []byte("}"))
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return Config{}, fmt.Errorf("reading the settings of a point: %w", err)
	}
	return ParseConfig(b)
}

// Diff returns the fields in which two documents differ; see [document.Diff].
func Diff(before, after Config) ([]document.Change, error) { return document.Diff(before, after) }

// Validate refuses settings that no point can have. now bounds the end of legacy switches that are set anew; the zero
// time does not. Errors are faults of the kind BadRequest with the field.
func (c Config) Validate(now time.Time) error {
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
	case c.Renewal.Percent < 0 || c.Renewal.Percent > 100:
		return bad("renewal.percent", "it is 1 to 100")
	}
	if _, err := parseNames(c.Subject, c.SANs); err != nil {
		return err
	}
	for _, check := range []func() error{c.validateDevices, c.validateReturn, c.validateLimits, c.validateWebhook} {
		if err := check(); err != nil {
			return err
		}
	}
	return c.validateLegacy(now)
}

// Warnings are what is allowed, and worth a thought. static tells whether the point has a static challenge.
func (c Config) Warnings(static bool, now time.Time) []string {
	var list []string
	var on, over []string
	for _, s := range slices.Sorted(maps.Keys(c.Legacy)) {
		if now.Before(c.Legacy[s].End()) {
			on = append(on, string(s))
		} else {
			over = append(over, string(s))
		}
	}
	if len(on) > 0 {
		list = append(list, "legacy switches ("+strings.Join(on, ", ")+") are holes with an end date: each use is logged and counted")
	}
	if len(over) > 0 {
		list = append(list, "legacy switches whose day is over ("+strings.Join(over, ", ")+") are off")
	}
	open := c.Subject == "" && len(c.SANs) == 0
	if static && open && !c.Approval && (len(c.Challenges) == 0 || slices.Contains(c.Challenges, ChallengeStatic)) {
		list = append(list, "whoever knows the static challenge can have every name that the profile allows: set subject or sans, or approval")
	}
	if identity := orDefault(c.Device.Identity, IdentityNone); identity == IdentityNone && c.Device.Registered && (slices.Contains(c.Challenges, ChallengeStatic) || static && len(c.Challenges) == 0) {
		list = append(list, "only registered devices are served, and nothing in a request with a static challenge says which one it is: set device.identity")
	}
	return list
}

func bad(field, format string, args ...any) *fault.Error {
	return fault.New(fault.BadRequest, format, args...).WithField(field)
}

// oneOf refuses a word that is neither empty nor among the known ones.
func oneOf[T ~string](field string, word T, known ...T) error {
	if word == "" || slices.Contains(known, word) {
		return nil
	}
	var list strings.Builder
	for i, k := range known {
		switch {
		case i > 0 && i == len(known)-1:
			list.WriteString(" or ")
		case i > 0:
			list.WriteString(", ")
		}
		list.WriteString(string(k))
	}
	return bad(field, "it is %s", list.String())
}

func (c *Config) validateDevices() error {
	for i, kind := range c.Challenges {
		field := fmt.Sprintf("challenges[%d]", i)
		if err := oneOf(field, kind, ChallengeOneTime, ChallengeStatic, ChallengeWebhook); err != nil {
			return err
		}
		if kind == "" || slices.Contains(c.Challenges[:i], kind) {
			return bad(field, "each kind stands there once")
		}
	}
	if err := oneOf("device.identity", c.Device.Identity, IdentityNone, IdentityCommonName, IdentitySerialNumber, IdentityDNSName, IdentityURI); err != nil {
		return err
	}
	return oneOf("replacement", c.Replacement, ReplaceSupersede, ReplaceRevoke, ReplacePending, ReplaceRefuse)
}

func (c *Config) validateReturn() error {
	r := c.Return
	if err := oneOf("return.policy", r.Policy, ReturnPending, ReturnGrace, ReturnRefuse); err != nil {
		return err
	}
	switch {
	case r.Grace < 0 || r.Grace > maxGrace:
		return bad("return.grace", "it is at most %s", maxGrace)
	case r.Attempts < 0 || r.Attempts > maxAttempts:
		return bad("return.attempts", "it is 1 to %d", maxAttempts)
	case r.Validity < 0 || r.Validity > 0 && r.Validity < profile.Duration(time.Minute):
		return bad("return.validity", "it is at least 1m")
	case r.Policy != ReturnGrace && r != (ReturnRules{Policy: r.Policy}):
		return bad("return.policy", "the other settings of return are for the policy %s, and would do nothing", ReturnGrace)
	}
	return nil
}

func (c *Config) validateLimits() error {
	for _, l := range []struct {
		field string
		value int
	}{
		{"limits.perMinute", c.Limits.PerMinute}, {"limits.burst", c.Limits.Burst}, {"limits.failuresPerMinute", c.Limits.FailuresPerMinute},
	} {
		if l.value < 0 || l.value > maxPerMinute {
			return bad(l.field, "it is 1 to %d", maxPerMinute)
		}
	}
	if c.Limits.Burst > 0 && c.Limits.PerMinute == 0 {
		return bad("limits.burst", "without limits.perMinute it would do nothing")
	}
	return nil
}

func (c *Config) validateLegacy(now time.Time) error {
	for s, until := range c.Legacy {
		switch {
		case !slices.Contains(Switches(), s):
			return bad("legacy", "there is no switch %q; there are %s", cut(string(s), 30), switchNames())
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

func switchNames() string {
	var names []string
	for _, s := range Switches() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
