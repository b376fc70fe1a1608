package ca

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/store"
)

// ProfilePlan is what putting a profile's configuration into force would do.
type ProfilePlan struct {
	Profile *profile.Profile
	// Current is the newest version in the store; its Version is 0 when there is none.
	Current pki.ProfileVersion
	// Changes are against Current; for a new profile, all that the configuration says.
	Changes []profile.Change
}

// PlanProfile validates a configuration and compares it with the newest version in the store. It changes nothing.
// Errors name the configuration's field; see [profile.New].
func (a *Authority) PlanProfile(ctx context.Context, c profile.Config) (ProfilePlan, error) {
	var plan ProfilePlan
	history, err := a.cfg.Store.ProfileHistory(ctx, c.Name)
	switch {
	case fault.Is(err, fault.NotFound):
	case err != nil:
		return plan, err
	default:
		plan.Current = history[0]
	}
	build := profile.New
	if plan.Current.Builtin {
		build = profile.NewBuiltin
	}
	if plan.Profile, err = build(c); err != nil {
		return plan, err
	}
	var before profile.Config
	if plan.Current.Version > 0 {
		// What this release cannot read differs in everything.
		if before, err = profile.ParseConfig(plan.Current.Config); err != nil {
			before = profile.Config{}
		}
	}
	plan.Changes, err = profile.Diff(before, plan.Profile.Config())
	return plan, err
}

// AnyVersion stands for the newest version of a profile, whichever it is.
const AnyVersion = -1

// ProfileChange asks for a new profile, or for a new version of one.
type ProfileChange struct {
	Principal pki.Principal
	RequestID string
	Config    profile.Config
	// Version is the one that the change was made on: 0 for a new profile, AnyVersion to overwrite whatever is there.
	Version int
}

// PutProfile puts a configuration into force: it is durable when PutProfile returns, and other replicas see it within a
// second. One that changes nothing writes nothing; the plan has no changes then, and the version is the one in force. An
// error that wraps store.ErrStale says that somebody else was faster, or that the profile exists, or does not.
func (a *Authority) PutProfile(ctx context.Context, ch ProfileChange) (pki.ProfileVersion, ProfilePlan, error) {
	plan, err := a.PlanProfile(ctx, ch.Config)
	if err != nil {
		return pki.ProfileVersion{}, plan, err
	}
	name, current := ch.Config.Name, plan.Current.Version
	switch {
	case ch.Version == AnyVersion && current > 0, ch.Version == current:
	case current == 0:
		return pki.ProfileVersion{}, plan, fault.Wrap(fault.NotFound, store.ErrStale, "there is no profile %q", name).WithField("profile")
	case ch.Version == 0:
		return pki.ProfileVersion{}, plan, fault.Wrap(fault.Conflict, store.ErrStale, "there is a profile %q already", name).WithField("name").
			WithHint("change it, or choose another name")
	default:
		return pki.ProfileVersion{}, plan, staleProfile(name, store.ErrStale, current, ch.Version)
	}
	if current > 0 && len(plan.Changes) == 0 {
		return plan.Current, plan, nil
	}
	now, err := a.cfg.Clock.Check()
	if err != nil {
		return pki.ProfileVersion{}, plan, err
	}
	text, err := json.Marshal(plan.Profile.Config())
	if err != nil {
		return pki.ProfileVersion{}, plan, fmt.Errorf("encoding profile %q: %w", name, err)
	}
	next := pki.ProfileVersion{
		Name: name, Version: current + 1, Config: text, Builtin: plan.Current.Builtin,
		CreatedAt: now.Truncate(time.Microsecond), CreatedBy: ch.Principal.Name,
	}
	detail := map[string]string{"version": strconv.Itoa(next.Version), "fields": changedFields(plan.Changes)}
	err = a.cfg.Store.PutProfile(ctx, next, audit.Record{
		Time: now, Action: audit.ActionProfile, Actor: ch.Principal.Name, Role: ch.Principal.Role.String(), Source: ch.Principal.Source,
		RequestID: ch.RequestID, Target: "profile/" + name, Detail: detail,
	})
	if fault.Is(err, fault.Conflict) {
		err = staleProfile(name, err, next.Version, ch.Version)
	}
	return next, plan, err
}

func staleProfile(name string, cause error, current, on int) error {
	return fault.Wrap(fault.Conflict, cause, "somebody else has changed the profile %q: it is at version %d or a later one, this change was made on version %d", name, current, max(on, 0)).
		WithHint("read the profile again, and make the change on what it is now")
}

// changedFields names fields in one text, for the audit record.
func changedFields(changes []profile.Change) string {
	fields := make([]string, 0, len(changes))
	for _, c := range changes {
		fields = append(fields, c.Field)
	}
	return strings.Join(fields, ", ")
}
