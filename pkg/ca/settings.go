package ca

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/settings"
	"github.com/certwright/certwright/pkg/store"
)

// SettingsPlan is what putting an issuer's settings into force would do.
type SettingsPlan struct {
	Issuer *issuer.Issuer
	// Config is what would be kept: without the name.
	Config settings.Config
	// Current is the newest version in the store; its Version is 0 when there is none.
	Current pki.SettingsVersion
	// Before is what Current says; the zero value when there is none, or this program cannot read it.
	Before settings.Config
	// Changes are against Before.
	Changes []settings.Change
	// Warnings say what follows from the changes.
	Warnings []string
}

// Process returns what the process has settled for issuers, which their own settings stand over.
func (a *Authority) Process() settings.InForce { return a.cfg.Process }

// PlanSettings checks settings for the issuer that they name, and compares them with the newest in the store. It changes
// nothing. Errors name the field.
func (a *Authority) PlanSettings(ctx context.Context, c settings.Config) (SettingsPlan, error) {
	var plan SettingsPlan
	if c.Name == "" {
		return plan, fault.New(fault.BadRequest, "the settings name no issuer").WithField("name")
	}
	var err error
	if plan.Issuer, err = a.cfg.Issuers.Current().Issuer(c.Name); err != nil {
		return plan, err
	}
	plan.Config = c
	plan.Config.Name = ""
	if err := c.Check(a.cfg.Process); err != nil {
		return plan, err
	}
	if plan.Issuer.Root && c.CRL.Form == settings.Sharded {
		return plan, fault.New(fault.PolicyRefused, "the root %q issues CA certificates only, which one CRL speaks of", c.Name).WithField("crl.form")
	}
	history, err := a.cfg.Store.IssuerSettingsHistory(ctx, plan.Issuer.ID)
	if err != nil {
		return plan, err
	}
	if len(history) > 0 {
		plan.Current = history[0]
		// What this release cannot read differs in everything.
		if plan.Before, err = settings.Parse(plan.Current.Config); err != nil {
			plan.Before = settings.Config{}
		}
	}
	if plan.Changes, err = settings.Diff(plan.Before, plan.Config); err != nil {
		return plan, err
	}
	if len(plan.Changes) > 0 {
		plan.Warnings = a.consequences(&plan)
	}
	return plan, nil
}

// consequences tells an administrator what a change means for those who have certificates, and for those who check them.
func (a *Authority) consequences(plan *SettingsPlan) []string {
	var out []string
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	before, after := plan.Before.Over(a.cfg.Process), plan.Config.Over(a.cfg.Process)
	if was, is := before.CRL.Set(), after.CRL.Set(); was != is {
		end := ""
		for _, k := range plan.Issuer.Keys {
			for _, address := range k.Addresses {
				if address.Set == was && address.Until.Format(time.DateOnly) > end {
					end = address.Until.Format(time.DateOnly)
				}
			}
		}
		kept := "certificates that were issued before keep their CRL"
		if end != "" {
			kept += ", which is made and served until the last of them has ended, before " + end
		}
		switch {
		case is == pki.ScopeFull:
			warn("new certificates name one CRL that speaks of all; %s", kept)
		default:
			warn("new certificates name one of %d CRLs, as soon as all of these are published; %s", after.CRL.Shards, kept)
			warn("servers that read CRLs from a file go on with the bundle: it has the full CRL, which is made as well")
		}
	}
	if after.CRL.Delta && !before.CRL.Delta {
		warn("delta CRLs are for verifiers that ask for them, as Windows does; nginx, Apache and HAProxy read complete CRLs")
	}
	if d := after.CRL.NextUpdate; d < before.CRL.NextUpdate && d < time.Duration(document.Day) {
		warn("when no CRL can be made for %s, verifiers that check CRLs refuse everybody", settings.Duration(d))
	}
	if d := after.OCSP.NextUpdate; d > before.OCSP.NextUpdate && d > time.Hour {
		warn("verifiers may believe in a certificate for up to %s after it was revoked: some keep an OCSP answer as long as it says", settings.Duration(d))
	}
	return out
}

// SettingsChange asks for a new version of an issuer's settings.
type SettingsChange struct {
	Principal pki.Principal
	RequestID string
	Config    settings.Config // with the issuer's name
	// Version is the one that the change was made on: 0 when there is none yet, AnyVersion to overwrite whatever is there.
	Version int
}

// PutSettings puts settings into force: they are durable when PutSettings returns, and other replicas have them within a
// second. What changes nothing writes nothing; the plan has no changes then, and the version is the one in force. An error
// that wraps store.ErrStale says that somebody else was faster.
func (a *Authority) PutSettings(ctx context.Context, ch SettingsChange) (pki.SettingsVersion, SettingsPlan, error) {
	plan, err := a.PlanSettings(ctx, ch.Config)
	if err != nil {
		return pki.SettingsVersion{}, plan, err
	}
	name, current := plan.Issuer.Name, plan.Current.Version
	if ch.Version != AnyVersion && ch.Version != current {
		return pki.SettingsVersion{}, plan, staleSettings(name, store.ErrStale, current, ch.Version)
	}
	if len(plan.Changes) == 0 {
		return plan.Current, plan, nil
	}
	now, err := a.cfg.Clock.Check()
	if err != nil {
		return pki.SettingsVersion{}, plan, err
	}
	text, err := json.Marshal(plan.Config)
	if err != nil {
		return pki.SettingsVersion{}, plan, fmt.Errorf("encoding the settings of %q: %w", name, err)
	}
	next := pki.SettingsVersion{
		IssuerID: plan.Issuer.ID, Version: current + 1, Config: text, CreatedAt: now.Truncate(time.Microsecond), CreatedBy: ch.Principal.Name,
	}
	detail := map[string]string{"version": strconv.Itoa(next.Version), "fields": changedFields(plan.Changes)}
	// With the settings the address is there that asks for the CRLs which certificates will name.
	var addresses []pki.CRLAddress
	if set := plan.Config.CRL.Set(); set != pki.ScopeFull {
		address := a.address(plan.Issuer.Current, set)
		address.RecordedAt, address.ListedAt, address.Until = now, time.Time{}, carriedUntil(now)
		addresses = append(addresses, address)
		detail["set"], detail["url"] = address.Set, address.URL
	}
	err = a.cfg.Store.PutIssuerSettings(ctx, next, addresses, audit.Record{
		Time: now, Action: audit.ActionIssuer, Actor: ch.Principal.Name, Role: ch.Principal.Role.String(), Source: ch.Principal.Source,
		RequestID: ch.RequestID, Target: "issuer/" + name, Detail: detail,
	})
	if fault.Is(err, fault.Conflict) {
		err = staleSettings(name, err, next.Version, ch.Version)
	}
	return next, plan, err
}

func staleSettings(name string, cause error, current, on int) error {
	return fault.Wrap(fault.Conflict, cause, "somebody else has changed the settings of %q: they are at version %d or a later one, this change was made on version %d", name, current, max(on, 0)).
		WithHint("read the settings again, and make the change on what they are now")
}
