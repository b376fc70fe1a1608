package rest

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/store"
)

// Profile is a profile as the API shows it.
type Profile struct {
	Name        string          `json:"name"`
	Version     int             `json:"version"`
	Description string          `json:"description"`
	Builtin     bool            `json:"builtin"`
	CA          bool            `json:"ca" doc:"Issues CA certificates; takes an administrator"`
	Disabled    bool            `json:"disabled,omitempty" doc:"Nothing is issued with it"`
	Changed     time.Time       `json:"changed"`
	ChangedBy   string          `json:"changed_by"`
	Config      json.RawMessage `json:"config,omitempty" doc:"The configuration; left out of lists"`
}

func describe(p *ca.Profile) Profile {
	return Profile{
		Name: p.Name(), Version: p.Version, Description: p.Description(), Builtin: p.Record.Builtin, CA: p.IsCA(), Disabled: p.Disabled(),
		Changed: p.Record.CreatedAt, ChangedBy: p.Record.CreatedBy,
	}
}

// describeVersion is describe for a version that need not be in force, nor be one that this release can read.
func describeVersion(v pki.ProfileVersion) Profile {
	out := Profile{Name: v.Name, Version: v.Version, Builtin: v.Builtin, Changed: v.CreatedAt, ChangedBy: v.CreatedBy, Config: v.Config}
	if c, err := profile.ParseConfig(v.Config); err == nil {
		out.Description, out.CA, out.Disabled = c.Description, c.CA != nil, c.Disabled
	}
	return out
}

type profilesOutput struct {
	Body struct {
		Profiles []Profile `json:"profiles"`
	}
}

func (a *api) listProfiles(ctx context.Context, _ *struct{}) (*profilesOutput, error) {
	out := &profilesOutput{}
	out.Body.Profiles = []Profile{}
	for _, p := range a.CA.Profiles() {
		if auth.MayUse(principal(ctx), "", p.Name()) == nil {
			out.Body.Profiles = append(out.Body.Profiles, describe(p))
		}
	}
	return out, nil
}

// ProfileInput is the path of one profile. It is exported so that the library can fill it in where it is embedded.
type ProfileInput struct {
	Profile string `path:"profile" maxLength:"100"`
}

type profileOutput struct {
	ETag string `header:"ETag" doc:"The version in quotation marks, for If-Match"`
	Body Profile
}

func (a *api) getProfile(ctx context.Context, in *ProfileInput) (*profileOutput, error) {
	if err := auth.MayUse(principal(ctx), "", in.Profile); err != nil {
		return nil, err
	}
	p, err := a.CA.Profile(in.Profile)
	if err != nil {
		return nil, err
	}
	out := &profileOutput{ETag: etag(p.Version), Body: describe(p)}
	out.Body.Config = json.RawMessage(p.Record.Config)
	return out, nil
}

// ProfileVersion is a version of a profile in its history.
type ProfileVersion struct {
	Version   int       `json:"version"`
	Changed   time.Time `json:"changed"`
	ChangedBy string    `json:"changed_by"`
	Fields    []string  `json:"fields" doc:"What differs from the version before, as in validity.max; empty for the first"`
}

type profileVersionsOutput struct {
	Body struct {
		Versions []ProfileVersion `json:"versions" doc:"Newest first"`
	}
}

func (a *api) history(ctx context.Context, name string) ([]pki.ProfileVersion, error) {
	if err := auth.MayUse(principal(ctx), "", name); err != nil {
		return nil, err
	}
	history, err := a.Store.ProfileHistory(ctx, name)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.Wrap(fault.NotFound, err, "there is no profile %q", name).WithField("profile")
	}
	return history, err
}

func (a *api) listProfileVersions(ctx context.Context, in *ProfileInput) (*profileVersionsOutput, error) {
	history, err := a.history(ctx, in.Profile)
	if err != nil {
		return nil, err
	}
	out := &profileVersionsOutput{}
	for i, v := range history {
		version := ProfileVersion{Version: v.Version, Changed: v.CreatedAt, ChangedBy: v.CreatedBy, Fields: []string{}}
		if i+1 < len(history) {
			if version.Fields, err = changedFields(profile.ParseConfig, history[i+1].Config, v.Config); err != nil {
				return nil, err
			}
		}
		out.Body.Versions = append(out.Body.Versions, version)
	}
	return out, nil
}

type profileVersionInput struct {
	ProfileInput
	Version int `path:"version" minimum:"1"`
}

func (a *api) getProfileVersion(ctx context.Context, in *profileVersionInput) (*profileOutput, error) {
	history, err := a.history(ctx, in.Profile)
	if err != nil {
		return nil, err
	}
	for _, v := range history {
		if v.Version == in.Version {
			return &profileOutput{ETag: etag(v.Version), Body: describeVersion(v)}, nil
		}
	}
	return nil, fault.New(fault.NotFound, "the profile %q has no version %d", in.Profile, in.Version).WithField("version").
		WithHint("the newest is %d", history[0].Version)
}

// ConfigBody is a profile's configuration as it was sent. Package profile reads it.
type ConfigBody struct{ rawDocument }

// Schema describes [profile.Config], from the type itself.
func (ConfigBody) Schema(r huma.Registry) *huma.Schema {
	return documentSchema[profile.Config](r, "ProfileConfig", "What an administrator writes; docs/profiles.md explains every field", "name", "kind")
}

func schemaOf(t reflect.Type) *huma.Schema {
	switch {
	case t == reflect.TypeFor[profile.Duration]():
		return &huma.Schema{Type: huma.TypeString, Description: "As in 90d, 1y, 36h or 5m"}
	case t == reflect.TypeFor[enrollment.Date]():
		return &huma.Schema{Type: huma.TypeString, Format: "date", Description: "As in 2027-03-31"}
	case t.Kind() == reflect.Pointer:
		return schemaOf(t.Elem())
	}
	switch t.Kind() {
	case reflect.Bool:
		return &huma.Schema{Type: huma.TypeBoolean}
	case reflect.Int:
		return &huma.Schema{Type: huma.TypeInteger}
	case reflect.Slice:
		return &huma.Schema{Type: huma.TypeArray, Items: schemaOf(t.Elem())}
	case reflect.Map:
		return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: schemaOf(t.Elem())}
	case reflect.Struct:
		s := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}, AdditionalProperties: false}
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			s.Properties[name] = schemaOf(t.Field(i).Type)
		}
		return s
	}
	return &huma.Schema{Type: huma.TypeString}
}

// precondition is a fault with the HTTP status of a failed precondition (RFC 9110, Section 13; RFC 6585, Section 3).
type precondition struct {
	error
	status int
}

func (p *precondition) Unwrap() error { return p.error }

type createProfileInput struct {
	Body ConfigBody
}

type changedProfileOutput struct {
	Status   int
	Location string `header:"Location" doc:"Address of a new profile"`
	ETag     string `header:"ETag" doc:"The version in quotation marks, for If-Match"`
	Body     Profile
}

func (a *api) createProfile(ctx context.Context, in *createProfileInput) (*changedProfileOutput, error) {
	c, err := profile.ParseConfig(in.Body.raw)
	if err != nil {
		return nil, err
	}
	return a.change(ctx, c, 0)
}

type putProfileInput struct {
	ProfileInput
	IfMatch     string `header:"If-Match" doc:"ETag of the version that the change was made on; * for whichever. Needed to change a profile that exists." maxLength:"100"`
	IfNoneMatch string `header:"If-None-Match" doc:"* creates the profile only if there is none" maxLength:"100"`
	Body        ConfigBody
}

func (a *api) putProfile(ctx context.Context, in *putProfileInput) (*changedProfileOutput, error) {
	version := 0
	switch in.IfMatch {
	case "":
	case "*":
		version = ca.AnyVersion
	default:
		var err error
		if version, err = matchVersion(in.IfMatch, "a profile", 1); err != nil {
			return nil, err
		}
	}
	if err := onlyIfNone(in.IfNoneMatch, in.IfMatch); err != nil {
		return nil, err
	}
	c, err := profile.ParseConfig(in.Body.raw)
	if err != nil {
		return nil, err
	}
	if c.Name == "" {
		c.Name = in.Profile
	}
	if c.Name != in.Profile {
		return nil, fault.New(fault.BadRequest, "the configuration is called otherwise than its address").WithField("name").
			WithHint("a profile is not renamed; create another one and disable this one")
	}
	out, err := a.change(ctx, c, version)
	if !errors.Is(err, store.ErrStale) || fault.Is(err, fault.NotFound) {
		return out, err
	}
	if in.IfMatch == "" && in.IfNoneMatch == "" {
		return nil, needsMatch(fault.Wrap(fault.Conflict, err, "there is a profile %q already", c.Name))
	}
	return nil, &precondition{status: http.StatusPreconditionFailed, error: err}
}

// change puts a configuration into force on the given version.
func (a *api) change(ctx context.Context, c profile.Config, version int) (*changedProfileOutput, error) {
	p := principal(ctx)
	if err := auth.MayUse(p, "", c.Name); err != nil {
		return nil, err
	}
	v, plan, err := a.CA.PutProfile(ctx, ca.ProfileChange{Principal: p, RequestID: problem.RequestID(ctx), Config: c, Version: version})
	if err != nil {
		return nil, err
	}
	if err := a.Sync(ctx); err != nil {
		return nil, fmt.Errorf("seeing the changed profile: %w", err)
	}
	out := &changedProfileOutput{Status: http.StatusOK, ETag: etag(v.Version), Body: describeVersion(v)}
	if plan.Current.Version == 0 {
		out.Status, out.Location = http.StatusCreated, Root+"/profiles/"+v.Name
	}
	return out, nil
}

// ProfileCheck is what a configuration would change.
type ProfileCheck struct {
	Name     string          `json:"name"`
	Version  int             `json:"version" doc:"The version in force; 0 for a new profile"`
	Builtin  bool            `json:"builtin"`
	Changes  []ProfileChange `json:"changes" doc:"What differs from the version in force"`
	Warnings []string        `json:"warnings,omitempty" doc:"What is allowed, but odd"`
	Config   json.RawMessage `json:"config" doc:"The configuration with its defaults written out"`
}

// ProfileChange is a field that differs.
type ProfileChange struct {
	Field string          `json:"field" doc:"As in validity.max"`
	Old   json.RawMessage `json:"old,omitempty" doc:"Absent when the field is new"`
	New   json.RawMessage `json:"new,omitempty" doc:"Absent when the field is gone"`
}

type checkProfileOutput struct{ Body ProfileCheck }

func (a *api) checkProfile(ctx context.Context, in *createProfileInput) (*checkProfileOutput, error) {
	c, err := profile.ParseConfig(in.Body.raw)
	if err != nil {
		return nil, err
	}
	if err := auth.MayUse(principal(ctx), "", c.Name); err != nil {
		return nil, err
	}
	plan, err := a.CA.PlanProfile(ctx, c)
	if err != nil {
		return nil, err
	}
	effective, err := json.Marshal(plan.Profile.Effective())
	if err != nil {
		return nil, fmt.Errorf("encoding a profile: %w", err)
	}
	out := &checkProfileOutput{Body: ProfileCheck{
		Name: c.Name, Version: plan.Current.Version, Builtin: plan.Current.Builtin, Changes: showChanges(plan.Changes),
		Warnings: append(plan.Profile.Warnings(), a.lifeWarnings(plan.Profile)...), Config: effective,
	}}
	return out, nil
}

// lifeWarnings tells of a life that no issuer can give.
func (a *api) lifeWarnings(p *profile.Profile) []string {
	standard, longest := p.Validity()
	var end time.Time
	for _, i := range a.Issuers.Current().Issuers {
		if (!i.Root || p.IsCA()) && i.Current.Certificate.NotAfter.After(end) {
			end = i.Current.Certificate.NotAfter
		}
	}
	left := profile.Duration(end.Sub(a.Now()).Truncate(24 * time.Hour))
	switch {
	case standard > left:
		return []string{fmt.Sprintf("the default life, %s, is longer than any issuer has left: certificates will end with it, on %s", standard, end.Format(time.DateOnly))}
	case longest > left:
		return []string{fmt.Sprintf("the longest life, %s, cannot be reached now: the last issuer ends on %s", longest, end.Format(time.DateOnly))}
	}
	return nil
}

type dryRunInput struct {
	ProfileInput
	Body struct {
		CSR      string          `json:"csr" doc:"PKCS #10 request: PEM, or DER in base64" maxLength:"131072"`
		Issuer   string          `json:"issuer,omitempty" doc:"Name of the issuer; may be left out when there is only one" maxLength:"100"`
		Subject  *string         `json:"subject,omitempty" doc:"Subject in place of the CSR's (RFC 4514)" maxLength:"2000"`
		SANs     []string        `json:"sans,omitempty" doc:"Names in place of the CSR's" maxItems:"500"`
		Validity string          `json:"validity,omitempty" doc:"How long, as in 90d or 12h" maxLength:"32"`
		NotAfter *time.Time      `json:"not_after,omitempty" doc:"The end, in place of validity"`
		Device   string          `json:"device,omitempty" doc:"Identity of the device that will use it" maxLength:"256"`
		Config   json.RawMessage `json:"config,omitempty" doc:"A ProfileConfig to try in place of the profile in force; takes an administrator"`
	}
}

// DryRun is a certificate that was not issued.
type DryRun struct {
	Profile        string      `json:"profile"`
	ProfileVersion int         `json:"profile_version" doc:"0 for a configuration that is not in force"`
	Issuer         string      `json:"issuer" doc:"Subject of the CA that would sign"`
	Subject        string      `json:"subject" doc:"Subject (RFC 4514)"`
	SANs           []string    `json:"sans"`
	NotBefore      time.Time   `json:"not_before"`
	NotAfter       time.Time   `json:"not_after"`
	KeyAlgorithm   string      `json:"key_algorithm"`
	KeyUsage       []string    `json:"key_usage"`
	ExtKeyUsage    []string    `json:"ext_key_usage"`
	CA             bool        `json:"ca"`
	Extensions     []Extension `json:"extensions" doc:"All of them, in their order"`
	Warnings       []string    `json:"warnings,omitempty" doc:"What would be changed or is odd"`
	PEM            string      `json:"certificate" doc:"What it would look like, signed by a throw-away key in the name of nobody: good for looking at, for nothing else"`
}

// Extension is an extension of a certificate.
type Extension struct {
	OID      string `json:"oid"`
	Name     string `json:"name,omitempty" doc:"As RFC 5280 calls it"`
	Critical bool   `json:"critical"`
	Value    string `json:"value" doc:"For people; in hexadecimal where there is no better way"`
}

type dryRunOutput struct{ Body DryRun }

func (a *api) dryRunProfile(ctx context.Context, in *dryRunInput) (*dryRunOutput, error) {
	p := principal(ctx)
	request, err := a.parseCSR(in.Body.CSR)
	if err != nil {
		return nil, err
	}
	i, err := a.Issuers.Current().Issuer(in.Body.Issuer)
	if err != nil {
		return nil, err
	}
	if err := auth.MayUse(p, i.Name, in.Profile); err != nil {
		return nil, err
	}
	r := ca.Request{Principal: p, RequestID: problem.RequestID(ctx), Protocol: "rest", Issuer: i.Name, Profile: in.Profile, CSR: request, Device: in.Body.Device}
	if err := override(&r, in.Body.Subject, in.Body.SANs, in.Body.Validity, in.Body.NotAfter); err != nil {
		return nil, err
	}
	config, err := dryRunConfig(p, in)
	if err != nil {
		return nil, err
	}
	run, err := a.CA.DryRun(ctx, r, config)
	if err != nil {
		return nil, err
	}
	if run.Profile.IsCA() {
		if err := auth.Require(p, pki.RoleAdministrator, false); err != nil {
			return nil, fault.Wrap(fault.Forbidden, err, "CA certificates take an administrator").WithField("profile")
		}
	}
	return &dryRunOutput{Body: showDryRun(run)}, nil
}

// dryRunConfig reads the configuration to try; nil if there is none.
func dryRunConfig(p pki.Principal, in *dryRunInput) (*profile.Config, error) {
	if len(in.Body.Config) == 0 {
		return nil, nil
	}
	if err := auth.Require(p, pki.RoleAdministrator, false); err != nil {
		return nil, fault.Wrap(fault.Forbidden, err, "trying a configuration takes an administrator").WithField("config")
	}
	c, err := profile.ParseConfig(in.Body.Config)
	if err != nil {
		return nil, err
	}
	if c.Name == "" {
		c.Name = in.Profile
	}
	if c.Name != in.Profile {
		return nil, fault.New(fault.BadRequest, "the configuration is called otherwise than its address").WithField("name")
	}
	return &c, nil
}

func showDryRun(run *ca.DryRun) DryRun {
	c := run.Contents
	out := DryRun{
		Profile: run.Profile.Name(), ProfileVersion: run.Profile.Version, Issuer: run.Issuer.Subject.String(),
		Subject: c.SubjectString, SANs: c.SANStrings, NotBefore: c.NotBefore, NotAfter: c.NotAfter, KeyAlgorithm: c.KeyAlgorithm.String(),
		KeyUsage: profile.KeyUsageNames(c.KeyUsage), ExtKeyUsage: []string{}, CA: c.IsCA, Warnings: c.Warnings,
		PEM: string(issuer.EncodePEM(run.Certificate)),
	}
	if out.SANs == nil {
		out.SANs = []string{}
	}
	for _, oid := range c.ExtKeyUsage {
		out.ExtKeyUsage = append(out.ExtKeyUsage, profile.ExtKeyUsageName(oid))
	}
	for _, e := range run.Certificate.Extensions {
		x := Extension{OID: e.Id.String(), Critical: e.Critical, Value: hex.EncodeToString(e.Value)}
		if known, ok := extensions[x.OID]; ok {
			x.Name = known.name
			if known.value != nil {
				x.Value = known.value(run.Certificate, out)
			}
		}
		out.Extensions = append(out.Extensions, x)
	}
	return out
}

// extensions are those that our certificates have, and how people read them.
var extensions = map[string]struct {
	name  string
	value func(c *x509.Certificate, d DryRun) string
}{
	"2.5.29.14": {"subjectKeyIdentifier", func(c *x509.Certificate, _ DryRun) string { return hex.EncodeToString(c.SubjectKeyId) }},
	"2.5.29.15": {"keyUsage", func(_ *x509.Certificate, d DryRun) string { return strings.Join(d.KeyUsage, ", ") }},
	"2.5.29.17": {"subjectAltName", func(_ *x509.Certificate, d DryRun) string { return strings.Join(d.SANs, ", ") }},
	"2.5.29.19": {"basicConstraints", func(c *x509.Certificate, _ DryRun) string {
		switch {
		case !c.IsCA:
			return "CA:FALSE"
		case c.MaxPathLen > 0 || c.MaxPathLenZero:
			return fmt.Sprintf("CA:TRUE, pathLenConstraint %d", c.MaxPathLen)
		}
		return "CA:TRUE"
	}},
	"2.5.29.30": {"nameConstraints", nil},
	"2.5.29.31": {"cRLDistributionPoints", func(c *x509.Certificate, _ DryRun) string { return strings.Join(c.CRLDistributionPoints, ", ") }},
	"2.5.29.32": {"certificatePolicies", func(c *x509.Certificate, _ DryRun) string {
		var oids []string
		for _, oid := range c.PolicyIdentifiers {
			oids = append(oids, oid.String())
		}
		return strings.Join(oids, ", ")
	}},
	"2.5.29.35": {"authorityKeyIdentifier", func(c *x509.Certificate, _ DryRun) string { return hex.EncodeToString(c.AuthorityKeyId) }},
	"2.5.29.37": {"extKeyUsage", func(_ *x509.Certificate, d DryRun) string { return strings.Join(d.ExtKeyUsage, ", ") }},
	"2.5.29.56": {"noRevAvail", func(*x509.Certificate, DryRun) string { return "NULL" }},
	"1.3.6.1.5.5.7.1.1": {"authorityInfoAccess", func(c *x509.Certificate, _ DryRun) string {
		var values []string
		for _, address := range c.OCSPServer {
			values = append(values, "OCSP "+address)
		}
		for _, address := range c.IssuingCertificateURL {
			values = append(values, "caIssuers "+address)
		}
		return strings.Join(values, ", ")
	}},
	"1.3.6.1.5.5.7.1.24": {"tlsfeature", func(*x509.Certificate, DryRun) string { return "status_request" }},
}
