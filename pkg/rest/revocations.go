package rest

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/certwright/certwright/pkg/campaign"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/store"
)

const (
	// operatorMost is how many certificates an operator may revoke in one campaign; more take an administrator.
	operatorMost = 1000
	// maxCampaigns is how many campaigns a list shows.
	maxCampaigns = 1000
)

// RevocationWhy is what every revocation of many has. It is exported so that the library can fill it in where it is embedded.
type RevocationWhy struct {
	Reason         string     `json:"reason,omitempty" doc:"RFC 5280, Section 5.3.1; unspecified if absent, keyCompromise for a key" maxLength:"32" example:"superseded"`
	InvalidityDate *time.Time `json:"invalidity_date,omitempty" doc:"Since when they are thought not to be trustworthy (RFC 5280, Section 5.3.2)"`
}

type revocationPlanInput struct {
	Body struct {
		Query CertificateQuery `json:"query" doc:"Which certificates, as a list has them; at least one condition. Without status: valid and hold"`
		RevocationWhy
	}
}

type revocationInput struct {
	Body struct {
		Query   CertificateQuery `json:"query" doc:"As in the dry run"`
		Confirm string           `json:"confirm" doc:"As the dry run gave it, at most an hour ago" maxLength:"200"`
		RevocationWhy
	}
}

// RevocationPlan is what a dry run says.
type RevocationPlan struct {
	AsOf          time.Time     `json:"as_of" doc:"What is issued later is not revoked, unless a key is blocked"`
	Count         int64         `json:"count" doc:"How many certificates match"`
	Revoked       int64         `json:"revoked" doc:"How many of them are revoked already; they would at most get another reason"`
	Sample        []Certificate `json:"sample" doc:"The newest of them"`
	Administrator bool          `json:"administrator" doc:"So many take an administrator"`
	Confirm       string        `json:"confirm" doc:"To be sent back by who begins"`
}

type revocationPlanOutput struct{ Body RevocationPlan }

// RevocationCampaign revokes many certificates.
type RevocationCampaign struct {
	ID             string            `json:"id"`
	State          string            `json:"state" enum:"running,paused,done,cancelled"`
	Query          *CertificateQuery `json:"query,omitempty" doc:"Which certificates; absent for a key"`
	SPKISHA256     string            `json:"spki_sha256,omitempty" doc:"SHA-256 of the SubjectPublicKeyInfo of the key that was blocked"`
	Reason         string            `json:"reason"`
	InvalidityDate *time.Time        `json:"invalidity_date,omitempty"`
	Expected       int64             `json:"expected" doc:"How many certificates matched when it began"`
	Revoked        int64             `json:"revoked" doc:"How many it has revoked, or given another reason"`
	Skipped        int64             `json:"skipped" doc:"How many had been revoked when their turn came"`
	CreatedAt      time.Time         `json:"created_at"`
	CreatedBy      string            `json:"created_by"`
	ChangedAt      time.Time         `json:"changed_at" doc:"Of its newest step or change of state"`
	EndedAt        *time.Time        `json:"ended_at,omitempty"`
}

func revocationCampaign(c store.Campaign) RevocationCampaign {
	out := RevocationCampaign{
		ID: c.ID, State: c.State.String(), Reason: c.Reason.String(), Expected: c.Expected, Revoked: c.Revoked, Skipped: c.Skipped,
		CreatedAt: c.CreatedAt, CreatedBy: c.CreatedBy, ChangedAt: c.ChangedAt,
	}
	if c.Key != nil {
		out.SPKISHA256 = hex.EncodeToString(c.Key[:])
	} else {
		// What another release has added is not shown; the campaign itself is exact about it.
		out.Query = &CertificateQuery{}
		if json.Unmarshal([]byte(c.Query), out.Query) != nil {
			out.Query = nil
		}
	}
	if !c.InvalidityDate.IsZero() {
		out.InvalidityDate = &c.InvalidityDate
	}
	if !c.EndedAt.IsZero() {
		out.EndedAt = &c.EndedAt
	}
	return out
}

type campaignOutput struct {
	Location string `header:"Location" doc:"Address of a new campaign"`
	Body     RevocationCampaign
}

type campaignsOutput struct {
	Body struct {
		Revocations []RevocationCampaign `json:"revocations"`
	}
}

// campaignRequest begins a request of the principal.
func campaignRequest(ctx context.Context, why RevocationWhy, otherwise pki.Reason) (campaign.Request, error) {
	p := principal(ctx)
	r := campaign.Request{Principal: p, RequestID: problem.RequestID(ctx), Reason: otherwise}
	if p.Role < pki.RoleAdministrator {
		r.Most = operatorMost
	}
	if why.Reason != "" {
		reason, err := pki.ParseReason(why.Reason)
		if err != nil {
			return r, fault.New(fault.BadRevocationReason, "%s", err).WithField("reason")
		}
		r.Reason = reason
	}
	if why.InvalidityDate != nil {
		r.InvalidityDate = *why.InvalidityDate
	}
	return r, nil
}

// byQuery is the request for what a query finds. some is false when nothing can match.
func (a *api) byQuery(ctx context.Context, q CertificateQuery, why RevocationWhy) (r campaign.Request, some bool, err error) {
	if r, err = campaignRequest(ctx, why, pki.Unspecified); err != nil {
		return r, false, err
	}
	if reflect.ValueOf(q).IsZero() {
		return r, false, fault.New(fault.BadRequest, "the query has no condition").WithField("query").
			WithHint("to revoke everything of an issuer, name the issuer")
	}
	text, err := json.Marshal(q)
	if err != nil {
		return r, false, err
	}
	r.Query = string(text)
	if len(q.Status) == 0 {
		q.Status = []string{"valid", "hold"}
	}
	r.Selection, some, err = a.filter(r.Principal, &q)
	return r, some, err
}

func (a *api) plan(ctx context.Context, r campaign.Request) (*revocationPlanOutput, error) {
	done, err := a.searches.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	p, err := a.Campaigns.Plan(ctx, r)
	if err != nil {
		return nil, err
	}
	out := &revocationPlanOutput{Body: RevocationPlan{
		AsOf: p.AsOf, Count: p.Count, Revoked: p.Revoked, Sample: shown(p.Sample, a.certificate), Administrator: r.Most > 0 && p.Count > r.Most, Confirm: p.Confirm,
	}}
	return out, nil
}

func (a *api) planRevocation(ctx context.Context, in *revocationPlanInput) (*revocationPlanOutput, error) {
	r, some, err := a.byQuery(ctx, in.Body.Query, in.Body.RevocationWhy)
	if err != nil {
		return nil, err
	}
	if !some {
		return nil, errNothingMatches()
	}
	return a.plan(ctx, r)
}

func errNothingMatches() error {
	return fault.New(fault.Conflict, "no certificate that this token may touch can match").WithField("query")
}

func (a *api) beginRevocation(ctx context.Context, in *revocationInput) (*campaignOutput, error) {
	r, some, err := a.byQuery(ctx, in.Body.Query, in.Body.RevocationWhy)
	if err != nil {
		return nil, err
	}
	if !some {
		return nil, errNothingMatches()
	}
	return a.begin(ctx, r, in.Body.Confirm)
}

func (a *api) begin(ctx context.Context, r campaign.Request, confirm string) (*campaignOutput, error) {
	done, err := a.searches.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := a.Campaigns.Begin(ctx, r, confirm)
	if err != nil {
		return nil, err
	}
	if c.Key != nil {
		// The campaign goes on without this replica's cache, and the store refuses the key already: nothing is lost when this fails.
		if err := a.Sync(ctx); err != nil {
			a.Logger.WarnContext(ctx, "a key is blocked, and this server has not learned of it yet", "err", err)
		}
	}
	return &campaignOutput{Location: Root + "/revocations/" + c.ID, Body: revocationCampaign(c)}, nil
}

// mayFollow refuses the campaigns of others to a token that is limited to issuers or profiles, as if they did not exist.
func mayFollow(p pki.Principal, c store.Campaign) bool {
	return c.CreatedBy == p.Name || len(p.Issuers) == 0 && len(p.Profiles) == 0
}

func (a *api) findCampaign(ctx context.Context, id string) (store.Campaign, error) {
	c, err := a.Store.Campaign(ctx, id)
	if err == nil && !mayFollow(principal(ctx), c) {
		err = fault.New(fault.NotFound, "there is no such campaign")
	}
	return c, err
}

type campaignInput struct {
	ID string `path:"id" maxLength:"64"`
}

func (a *api) getRevocation(ctx context.Context, in *campaignInput) (*campaignOutput, error) {
	c, err := a.findCampaign(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &campaignOutput{Body: revocationCampaign(c)}, nil
}

type campaignsInput struct {
	Limit int `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Campaigns in the answer"`
}

func (a *api) listRevocations(ctx context.Context, in *campaignsInput) (*campaignsOutput, error) {
	all, err := a.Store.ListCampaigns(ctx, maxCampaigns)
	if err != nil {
		return nil, err
	}
	out := &campaignsOutput{}
	out.Body.Revocations = []RevocationCampaign{}
	for _, c := range all {
		if len(out.Body.Revocations) < in.Limit && mayFollow(principal(ctx), c) {
			out.Body.Revocations = append(out.Body.Revocations, revocationCampaign(c))
		}
	}
	return out, nil
}

// setRevocation returns the handler that brings a campaign into a state. Whoever may begin a campaign may pause one; to
// have a large one go on, or never end, takes who could have begun it.
func (a *api) setRevocation(to store.CampaignState) func(context.Context, *campaignInput) (*campaignOutput, error) {
	return func(ctx context.Context, in *campaignInput) (*campaignOutput, error) {
		p := principal(ctx)
		c, err := a.findCampaign(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		if to != store.CampaignPaused && p.Role < pki.RoleAdministrator && c.Expected > operatorMost {
			return nil, fault.New(fault.Forbidden, "a campaign of more than %d certificates takes an administrator", operatorMost)
		}
		if c, err = a.Campaigns.Set(ctx, p, problem.RequestID(ctx), in.ID, to); err != nil {
			return nil, err
		}
		return &campaignOutput{Body: revocationCampaign(c)}, nil
	}
}

// BlockedKey is a public key that is refused.
type BlockedKey struct {
	SPKISHA256  string     `json:"spki_sha256" doc:"SHA-256 of the SubjectPublicKeyInfo, in hexadecimal"`
	Own         bool       `json:"own" doc:"A key of the CA's own; nobody else gets a certificate for it"`
	Compromised bool       `json:"compromised" doc:"It was reported compromised"`
	BlockedAt   *time.Time `json:"blocked_at,omitempty" doc:"When it was reported, if that is known"`
	BlockedBy   string     `json:"blocked_by,omitempty"`
	Revocation  string     `json:"revocation,omitempty" doc:"Id of the campaign that began with it"`
}

func blockedKey(hash [32]byte, b store.BlockedKey) BlockedKey {
	out := BlockedKey{SPKISHA256: hex.EncodeToString(hash[:]), Own: b.Own, Compromised: b.Compromised, BlockedBy: b.By, Revocation: b.Campaign}
	if !b.At.IsZero() {
		out.BlockedAt = &b.At
	}
	return out
}

type blockedKeysInput struct {
	Own   bool `query:"own" doc:"Also the CA's own keys, which were never reported"`
	Limit int  `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"Keys in the answer"`
}

type blockedKeysOutput struct {
	Body struct {
		Keys []BlockedKey `json:"keys" doc:"The newest reports first"`
		More bool         `json:"more" doc:"There are more than these"`
	}
}

func (a *api) listBlockedKeys(ctx context.Context, in *blockedKeysInput) (*blockedKeysOutput, error) {
	all, err := a.Store.BlockedKeys(ctx)
	if err != nil {
		return nil, err
	}
	hashes := slices.SortedFunc(maps.Keys(all), func(x, y [32]byte) int {
		if c := all[y].At.Compare(all[x].At); c != 0 {
			return c
		}
		return slices.Compare(x[:], y[:])
	})
	out := &blockedKeysOutput{}
	out.Body.Keys = []BlockedKey{}
	for _, hash := range hashes {
		if !in.Own && !all[hash].Compromised {
			continue
		}
		if out.Body.More = len(out.Body.Keys) == in.Limit; out.Body.More {
			break
		}
		out.Body.Keys = append(out.Body.Keys, blockedKey(hash, all[hash]))
	}
	return out, nil
}

type keyPlanInput struct {
	Body struct {
		SPKISHA256 string `json:"spki_sha256" doc:"SHA-256 of the SubjectPublicKeyInfo, in hexadecimal" maxLength:"128"`
		RevocationWhy
	}
}

type blockKeyInput struct {
	Body struct {
		SPKISHA256 string `json:"spki_sha256" doc:"As in the dry run" maxLength:"128"`
		Confirm    string `json:"confirm" doc:"As the dry run gave it, at most an hour ago" maxLength:"200"`
		RevocationWhy
	}
}

// byKey is the request for all of a key.
func (a *api) byKey(ctx context.Context, text string, why RevocationWhy) (campaign.Request, error) {
	r, err := campaignRequest(ctx, why, pki.KeyCompromise)
	if err != nil {
		return r, err
	}
	if len(r.Principal.Issuers) > 0 || len(r.Principal.Profiles) > 0 {
		return r, fault.New(fault.Forbidden, "this token is limited to some issuers or profiles, and a key is blocked for all")
	}
	hash, err := parseKeyHash(text)
	if err != nil {
		return r, err
	}
	all, err := a.Store.BlockedKeys(ctx)
	if err != nil {
		return r, err
	}
	if all[hash].Own {
		return r, fault.New(fault.PolicyRefused, "this public key is one of the CA's own").WithField("spki_sha256").
			WithHint("when the key of a CA was compromised, revoke its certificate, and take it out of the trust stores")
	}
	text = hex.EncodeToString(hash[:])
	r.Key, r.Query = &hash, `{"spki_sha256":"`+text+`"}`
	return r, nil
}

func parseKeyHash(text string) ([32]byte, error) {
	f, err := pki.ParseFingerprint(text)
	if err != nil {
		return [32]byte{}, fault.New(fault.BadRequest, "a key is named by the SHA-256 of its SubjectPublicKeyInfo: 64 hexadecimal digits").WithField("spki_sha256")
	}
	return [32]byte(f), nil
}

func (a *api) planKeyBlock(ctx context.Context, in *keyPlanInput) (*revocationPlanOutput, error) {
	r, err := a.byKey(ctx, in.Body.SPKISHA256, in.Body.RevocationWhy)
	if err != nil {
		return nil, err
	}
	return a.plan(ctx, r)
}

func (a *api) blockKey(ctx context.Context, in *blockKeyInput) (*campaignOutput, error) {
	r, err := a.byKey(ctx, in.Body.SPKISHA256, in.Body.RevocationWhy)
	if err != nil {
		return nil, err
	}
	return a.begin(ctx, r, in.Body.Confirm)
}

type unblockInput struct {
	SPKISHA256 string `path:"spki_sha256" doc:"SHA-256 of the SubjectPublicKeyInfo, in hexadecimal" maxLength:"128"`
}

func (a *api) unblockKey(ctx context.Context, in *unblockInput) (*struct{}, error) {
	p := principal(ctx)
	if len(p.Issuers) > 0 || len(p.Profiles) > 0 {
		return nil, fault.New(fault.Forbidden, "this token is limited to some issuers or profiles, and a key is blocked for all")
	}
	hash, err := parseKeyHash(in.SPKISHA256)
	if err != nil {
		return nil, err
	}
	if err := a.Campaigns.Unblock(ctx, p, problem.RequestID(ctx), hash); err != nil {
		return nil, err
	}
	if err := a.Sync(ctx); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the key is not blocked any more, but this server has not learned of it yet; it will within a second of reaching its store")
	}
	return nil, nil
}
