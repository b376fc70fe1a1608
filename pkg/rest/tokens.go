package rest

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
)

// Token is an API token as the API shows it: never its secret.
type Token struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Role      string     `json:"role" enum:"auditor,enroller,operator,administrator"`
	Issuers   []string   `json:"issuers,omitempty" doc:"The issuers it may use; absent: all"`
	Profiles  []string   `json:"profiles,omitempty" doc:"The profiles it may use; absent: all"`
	Names     []string   `json:"names,omitempty" doc:"Rules for what its certificates may name, as in DNS:*.dev.example.com; absent: what the profile allows"`
	Rate      int        `json:"rate,omitempty" doc:"Requests a minute; absent: as many as the server allows"`
	Status    string     `json:"status" enum:"valid,expired,revoked"`
	CreatedAt time.Time  `json:"created_at"`
	CreatedBy string     `json:"created_by"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"Absent: never"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
	Token     string     `json:"token,omitempty" doc:"The token itself; shown once, when it is created"`
}

func (a *api) token(t pki.Token) Token {
	out := Token{
		ID: t.ID, Name: t.Name, Role: t.Role.String(), Issuers: t.Issuers, Profiles: t.Profiles, Names: t.Names, Rate: t.Rate, Status: "valid",
		CreatedAt: t.CreatedAt, CreatedBy: t.CreatedBy,
	}
	if !t.ExpiresAt.IsZero() {
		out.ExpiresAt = &t.ExpiresAt
		if !a.Now().Before(t.ExpiresAt) {
			out.Status = "expired"
		}
	}
	if !t.RevokedAt.IsZero() {
		out.RevokedAt, out.Status = &t.RevokedAt, "revoked"
	}
	return out
}

type tokensOutput struct {
	Body struct {
		Tokens []Token `json:"tokens"`
	}
}

func (a *api) listTokens(ctx context.Context, _ *struct{}) (*tokensOutput, error) {
	all, err := a.Store.AllTokens(ctx)
	if err != nil {
		return nil, err
	}
	out := &tokensOutput{}
	out.Body.Tokens = []Token{}
	for _, t := range all {
		out.Body.Tokens = append(out.Body.Tokens, a.token(t))
	}
	return out, nil
}

type createTokenInput struct {
	Body struct {
		Name     string   `json:"name" doc:"Who or what it is for: letters, digits, . _ - @" minLength:"1" maxLength:"100"`
		Role     string   `json:"role" enum:"auditor,enroller,operator,administrator"`
		Issuers  []string `json:"issuers,omitempty" doc:"Limit to these issuers" maxItems:"100"`
		Profiles []string `json:"profiles,omitempty" doc:"Limit to these profiles" maxItems:"100"`
		Names    []string `json:"names,omitempty" doc:"Limit what its certificates may name: rules KIND:PATTERN, of which one must allow each name. Kinds are DNS, IP, URI, email, UPN, HMN, and attribute types such as CN and O; a star in a pattern stands for any characters; IP takes a network" maxItems:"100"`
		Rate     int      `json:"rate,omitempty" doc:"Limit its requests a minute, on each replica; as many as the server allows if absent" minimum:"0" maximum:"1000000"`
		Validity string   `json:"validity,omitempty" doc:"How long, as in 90d; never to end if 0; 365d if absent" maxLength:"32"`
	}
}

type tokenOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         Token
}

// A name goes into audit records, logs and terminals.
var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]*$`)

const defaultTokenLife = 365 * 24 * time.Hour

func (a *api) createToken(ctx context.Context, in *createTokenInput) (*tokenOutput, error) {
	p := principal(ctx)
	now, err := a.Clock.Check()
	if err != nil {
		return nil, err
	}
	role, err := pki.ParseRole(in.Body.Role)
	if err != nil {
		return nil, fault.New(fault.BadRequest, "%s", err).WithField("role")
	}
	if !tokenName.MatchString(in.Body.Name) {
		return nil, fault.New(fault.BadRequest, "a token's name has letters, digits, and . _ - @ after the first").WithField("name")
	}
	for _, n := range in.Body.Issuers {
		if _, err := a.Issuers.Current().Issuer(n); err != nil {
			return nil, err
		}
	}
	for _, n := range in.Body.Names {
		if _, err := auth.ParseNameRule(n); err != nil {
			return nil, fault.Public(err).WithField("names")
		}
	}
	for _, n := range in.Body.Profiles {
		if _, err := a.CA.Profile(n); err != nil {
			return nil, err
		}
	}
	text, t := auth.NewToken()
	t.Name, t.Role, t.Issuers, t.Profiles = in.Body.Name, role, in.Body.Issuers, in.Body.Profiles
	t.Names, t.Rate, t.CreatedAt, t.CreatedBy = in.Body.Names, in.Body.Rate, now, p.Name
	switch in.Body.Validity {
	case "":
		t.ExpiresAt = now.Add(defaultTokenLife)
		if !p.ExpiresAt.IsZero() && p.ExpiresAt.Before(t.ExpiresAt) {
			t.ExpiresAt = p.ExpiresAt
		}
	case "0":
	default:
		life, err := parseValidity(in.Body.Validity)
		if err != nil {
			return nil, err
		}
		t.ExpiresAt = now.Add(life)
	}
	if err := auth.MayGrant(p, t); err != nil {
		return nil, err
	}
	detail := map[string]string{"name": t.Name, "role": role.String()}
	if len(t.Issuers) > 0 {
		detail["issuers"] = strings.Join(t.Issuers, ", ")
	}
	if len(t.Profiles) > 0 {
		detail["profiles"] = strings.Join(t.Profiles, ", ")
	}
	if len(t.Names) > 0 {
		detail["names"] = strings.Join(t.Names, ", ")
	}
	if t.Rate > 0 {
		detail["rate"] = strconv.Itoa(t.Rate)
	}
	if !t.ExpiresAt.IsZero() {
		detail["expires_at"] = t.ExpiresAt.Format(time.RFC3339)
	}
	if err := a.Store.CreateToken(ctx, t, a.record(ctx, now, audit.ActionToken, "token/"+t.ID, detail)); err != nil {
		return nil, err
	}
	if err := a.Sync(ctx); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the token was created, but this server has not learned of it yet").WithHint("revoke it, and create another")
	}
	out := &tokenOutput{CacheControl: "no-store", Body: a.token(t)}
	out.Body.Token = text
	return out, nil
}

type tokenIDInput struct {
	ID string `path:"id" doc:"The token's id, or the name of a token in force" maxLength:"100"`
}

func (a *api) revokeToken(ctx context.Context, in *tokenIDInput) (*struct{}, error) {
	all, err := a.Store.AllTokens(ctx)
	if err != nil {
		return nil, err
	}
	var found *pki.Token
	for i, t := range all {
		if t.ID == in.ID || t.Name == in.ID && t.RevokedAt.IsZero() {
			found = &all[i]
			if t.ID == in.ID {
				break
			}
		}
	}
	if found == nil {
		// The id is not repeated: it may be the text of a token, by mistake.
		return nil, fault.New(fault.NotFound, "there is no token of this id or name").WithHint("«certwright token list» shows them")
	}
	if err := auth.Covers(principal(ctx), *found); err != nil {
		return nil, fault.New(fault.Forbidden, "this token is wider than yours, which cannot revoke it")
	}
	now := a.Clock.Stamp()
	record := a.record(ctx, now, audit.ActionTokenEnd, "token/"+found.ID, map[string]string{"name": found.Name, "role": found.Role.String()})
	if err := a.Store.RevokeToken(ctx, found.ID, now, record); err != nil {
		return nil, err
	}
	if err := a.Sync(ctx); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the token is revoked, but this server has not learned of it yet; it will within a second of reaching its store")
	}
	return nil, nil
}

// WhoAmI is what a token stands for.
type WhoAmI struct {
	Name     string   `json:"name"`
	Role     string   `json:"role"`
	Issuers  []string `json:"issuers,omitempty"`
	Profiles []string `json:"profiles,omitempty"`
	Names    []string `json:"names,omitempty" doc:"Rules for what your certificates may name"`
	Rate     int      `json:"rate,omitempty" doc:"Requests a minute"`
}

type whoAmIOutput struct{ Body WhoAmI }

func (a *api) whoAmI(ctx context.Context, _ *struct{}) (*whoAmIOutput, error) {
	p := principal(ctx)
	return &whoAmIOutput{Body: WhoAmI{Name: p.Name, Role: p.Role.String(), Issuers: p.Issuers, Profiles: p.Profiles, Names: p.Names, Rate: p.Rate}}, nil
}

// record begins an audit record of what the request's principal does at the given time.
func (a *api) record(ctx context.Context, at time.Time, action, target string, detail map[string]string) audit.Record {
	p := principal(ctx)
	return audit.Record{
		Time: at, Action: action, Actor: p.Name, Role: p.Role.String(), Source: p.Source,
		RequestID: problem.RequestID(ctx), Target: target, Detail: detail,
	}
}
