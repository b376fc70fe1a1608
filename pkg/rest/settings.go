package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/settings"
	"github.com/certwright/certwright/pkg/store"
)

// SettingsInForce is how an issuer's CRLs and OCSP answers are made: its own settings, and for what they leave open those of
// the process that answers.
type SettingsInForce struct {
	Version int          `json:"version" doc:"Of the issuer's own settings; 0 when there are none"`
	CRL     CRLInForce   `json:"crl"`
	OCSP    OCSPInForce  `json:"ocsp"`
	Pending *PendingCRLs `json:"pending,omitempty" doc:"CRLs that new certificates do not name yet; absent when there are none"`
}

// CRLInForce is how an issuer's CRLs are made.
type CRLInForce struct {
	Form            string `json:"form" enum:"full,sharded"`
	Shards          int    `json:"shards,omitempty" doc:"How many CRLs new certificates are spread over; absent for the full form"`
	Delta           bool   `json:"delta" doc:"Delta CRLs are made"`
	BaseInterval    string `json:"base_interval,omitempty" doc:"How often delta CRLs begin anew, as in 1d"`
	DeltaNextUpdate string `json:"delta_next_update,omitempty" doc:"How long a delta CRL may be used"`
	Interval        string `json:"interval" doc:"How often every CRL is made anew, as in 1h"`
	NextUpdate      string `json:"next_update" doc:"How long a CRL may be used"`
	Coalesce        string `json:"coalesce" doc:"How long a revocation waits for others"`
	MaxAge          string `json:"max_age" doc:"How long HTTP caches may keep a CRL"`
}

// OCSPInForce is how an issuer's certificates are answered for.
type OCSPInForce struct {
	NextUpdate string `json:"next_update" doc:"How long an answer may be used"`
	MaxAge     string `json:"max_age" doc:"How long HTTP caches may keep an answer"`
}

// PendingCRLs are CRLs that are being made.
type PendingCRLs struct {
	Set string `json:"set" doc:"The set of shards, as in s64; certificates name the full CRL meanwhile"`
}

func (a *api) inForce(i *issuer.Issuer) SettingsInForce {
	in := i.Settings.Over(a.CA.Process())
	text := func(d time.Duration) string { return settings.Duration(d).String() }
	out := SettingsInForce{
		Version: i.SettingsVersion.Version,
		CRL: CRLInForce{
			Form: string(settings.Full), Shards: in.CRL.Shards, Delta: in.CRL.Delta, Interval: text(in.CRL.Interval),
			NextUpdate: text(in.CRL.NextUpdate), Coalesce: text(in.CRL.Coalesce), MaxAge: text(in.CRL.MaxAge),
		},
		OCSP: OCSPInForce{NextUpdate: text(in.OCSP.NextUpdate), MaxAge: text(in.OCSP.MaxAge)},
	}
	if in.CRL.Delta {
		out.CRL.BaseInterval, out.CRL.DeltaNextUpdate = text(in.CRL.BaseInterval), text(in.CRL.DeltaNextUpdate)
	}
	if set := in.CRL.Set(); set != pki.ScopeFull {
		out.CRL.Form = string(settings.Sharded)
		address := pki.CRLAddressOf(a.Server.PublicURL, i.Current.KeyID, set)
		if known, ok := i.Current.Address(set, address.URL); !ok || known.ListedAt.IsZero() {
			out.Pending = &PendingCRLs{Set: set}
		}
	}
	return out
}

// IssuerSettings are an issuer's own settings.
type IssuerSettings struct {
	Issuer    string           `json:"issuer"`
	Version   int              `json:"version" doc:"0 when there are none: the process's are in force"`
	Changed   *time.Time       `json:"changed,omitempty"`
	ChangedBy string           `json:"changed_by,omitempty"`
	Config    json.RawMessage  `json:"config" doc:"What an administrator has settled"`
	InForce   *SettingsInForce `json:"in_force,omitempty" doc:"With what the process settles; left out of older versions"`
	Addresses []CRLAddress     `json:"addresses,omitempty" doc:"Every address of a CRL that certificates of the issuer carry"`
	Warnings  []string         `json:"warnings,omitempty" doc:"What follows from the change that was made"`
}

// CRLAddress is an address that certificates carry.
type CRLAddress struct {
	KeyID    string     `json:"key_id"`
	Set      string     `json:"set" doc:"full, or the name of a set of shards"`
	URL      string     `json:"url" doc:"{shard} stands for the number of the shard"`
	Recorded time.Time  `json:"recorded"`
	Until    time.Time  `json:"until" doc:"No certificate that carries it ends later"`
	Listed   *time.Time `json:"listed,omitempty" doc:"Since when certificates may carry it; absent when its CRLs are still being made"`
}

func describeSettings(name string, v pki.SettingsVersion) IssuerSettings {
	out := IssuerSettings{Issuer: name, Version: v.Version, ChangedBy: v.CreatedBy, Config: json.RawMessage(v.Config)}
	if v.Version == 0 {
		out.Config = json.RawMessage("{}")
	} else {
		out.Changed = &v.CreatedAt
	}
	return out
}

// settingsOf describes the settings of an issuer in force.
func (a *api) settingsOf(i *issuer.Issuer) IssuerSettings {
	out := describeSettings(i.Name, i.SettingsVersion)
	in := a.inForce(i)
	out.InForce = &in
	for _, k := range i.Keys {
		for _, address := range k.Addresses {
			shown := CRLAddress{KeyID: k.KeyID, Set: address.Set, URL: address.URL, Recorded: address.RecordedAt, Until: address.Until}
			if !address.ListedAt.IsZero() {
				shown.Listed = &address.ListedAt
			}
			out.Addresses = append(out.Addresses, shown)
		}
	}
	return out
}

type settingsOutput struct {
	ETag string `header:"ETag" doc:"The version in quotation marks, for If-Match"`
	Body IssuerSettings
}

// issuerFor returns an issuer whose settings the principal may see or change.
func (a *api) issuerFor(ctx context.Context, name string) (*issuer.Issuer, error) {
	if err := auth.MayUse(principal(ctx), name, ""); err != nil {
		return nil, err
	}
	return a.Issuers.Current().Issuer(name)
}

func (a *api) getIssuerSettings(ctx context.Context, in *issuerInput) (*settingsOutput, error) {
	i, err := a.issuerFor(ctx, in.Issuer)
	if err != nil {
		return nil, err
	}
	return &settingsOutput{ETag: etag(i.SettingsVersion.Version), Body: a.settingsOf(i)}, nil
}

// SettingsVersion is a version of an issuer's settings in their history.
type SettingsVersion struct {
	Version   int       `json:"version"`
	Changed   time.Time `json:"changed"`
	ChangedBy string    `json:"changed_by"`
	Fields    []string  `json:"fields" doc:"What differs from the version before, as in crl.form"`
}

type settingsVersionsOutput struct {
	Body struct {
		Versions []SettingsVersion `json:"versions" doc:"Newest first; none when nobody has settled anything"`
	}
}

func (a *api) listIssuerSettings(ctx context.Context, in *issuerInput) (*settingsVersionsOutput, error) {
	i, err := a.issuerFor(ctx, in.Issuer)
	if err != nil {
		return nil, err
	}
	history, err := a.Store.IssuerSettingsHistory(ctx, i.ID)
	if err != nil {
		return nil, err
	}
	out := &settingsVersionsOutput{}
	out.Body.Versions = []SettingsVersion{}
	for n, v := range history {
		version := SettingsVersion{Version: v.Version, Changed: v.CreatedAt, ChangedBy: v.CreatedBy}
		var before []byte
		if n+1 < len(history) {
			before = history[n+1].Config
		}
		if version.Fields, err = changedFields(settings.Parse, before, v.Config); err != nil {
			return nil, err
		}
		out.Body.Versions = append(out.Body.Versions, version)
	}
	return out, nil
}

type settingsVersionInput struct {
	Issuer  string `path:"issuer" doc:"Name of the issuer" maxLength:"100"`
	Version int    `path:"version" minimum:"1"`
}

func (a *api) getIssuerSettingsVersion(ctx context.Context, in *settingsVersionInput) (*settingsOutput, error) {
	i, err := a.issuerFor(ctx, in.Issuer)
	if err != nil {
		return nil, err
	}
	history, err := a.Store.IssuerSettingsHistory(ctx, i.ID)
	if err != nil {
		return nil, err
	}
	for _, v := range history {
		if v.Version == in.Version {
			return &settingsOutput{ETag: etag(v.Version), Body: describeSettings(i.Name, v)}, nil
		}
	}
	return nil, fault.New(fault.NotFound, "the settings of %q have no version %d", i.Name, in.Version).WithField("version")
}

// SettingsBody is an issuer's settings as they were sent. Package settings reads them.
type SettingsBody struct{ rawDocument }

// Schema describes [settings.Config], from the type itself.
func (SettingsBody) Schema(r huma.Registry) *huma.Schema {
	return documentSchema[settings.Config](r, "IssuerConfig", "What an administrator settles for an issuer; docs/crl.md explains every field")
}

type putSettingsInput struct {
	Issuer  string `path:"issuer" doc:"Name of the issuer" maxLength:"100"`
	IfMatch string `header:"If-Match" doc:"ETag of the version that the change was made on; * for whichever. Required." maxLength:"100"`
	Body    SettingsBody
}

func (a *api) putIssuerSettings(ctx context.Context, in *putSettingsInput) (*settingsOutput, error) {
	c, err := a.settingsFor(ctx, in.Issuer, in.Body)
	if err != nil {
		return nil, err
	}
	if in.IfMatch == "" {
		return nil, needsMatch(fault.New(fault.Conflict, "If-Match is missing"))
	}
	version := ca.AnyVersion
	if in.IfMatch != "*" {
		if version, err = matchVersion(in.IfMatch, "an issuer's settings", 0); err != nil {
			return nil, err
		}
	}
	v, plan, err := a.CA.PutSettings(ctx, ca.SettingsChange{Principal: principal(ctx), RequestID: problem.RequestID(ctx), Config: c, Version: version})
	if errors.Is(err, store.ErrStale) {
		return nil, &precondition{status: http.StatusPreconditionFailed, error: err}
	}
	if err != nil {
		return nil, err
	}
	if err := a.Sync(ctx); err != nil {
		return nil, fmt.Errorf("seeing the changed settings: %w", err)
	}
	out := &settingsOutput{ETag: etag(v.Version), Body: describeSettings(plan.Issuer.Name, v)}
	if i, err := a.Issuers.Current().Issuer(plan.Issuer.Name); err == nil && i.SettingsVersion.Version == v.Version {
		out.Body = a.settingsOf(i)
	}
	out.Body.Warnings = plan.Warnings
	return out, nil
}

// settingsFor reads settings for the issuer of an address. They may name it, and no other.
func (a *api) settingsFor(ctx context.Context, name string, body SettingsBody) (settings.Config, error) {
	i, err := a.issuerFor(ctx, name)
	if err != nil {
		return settings.Config{}, err
	}
	c, err := settings.Parse(body.raw)
	if err != nil {
		return settings.Config{}, err
	}
	if c.Name == "" {
		c.Name = i.Name
	}
	if c.Name != i.Name {
		return settings.Config{}, fault.New(fault.BadRequest, "the settings are for another issuer than their address").WithField("name")
	}
	return c, nil
}

type checkSettingsInput struct {
	Issuer string `path:"issuer" doc:"Name of the issuer" maxLength:"100"`
	Body   SettingsBody
}

// SettingsCheck is what settings would change.
type SettingsCheck struct {
	Issuer   string          `json:"issuer"`
	Version  int             `json:"version" doc:"The version in force; 0 when there is none"`
	Changes  []ProfileChange `json:"changes" doc:"What differs from the version in force"`
	Warnings []string        `json:"warnings,omitempty" doc:"What follows from the changes"`
}

type checkSettingsOutput struct{ Body SettingsCheck }

func (a *api) checkIssuerSettings(ctx context.Context, in *checkSettingsInput) (*checkSettingsOutput, error) {
	c, err := a.settingsFor(ctx, in.Issuer, in.Body)
	if err != nil {
		return nil, err
	}
	plan, err := a.CA.PlanSettings(ctx, c)
	if err != nil {
		return nil, err
	}
	out := &checkSettingsOutput{Body: SettingsCheck{Issuer: plan.Issuer.Name, Version: plan.Current.Version, Changes: showChanges(plan.Changes), Warnings: plan.Warnings}}
	return out, nil
}
