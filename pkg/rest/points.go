package rest

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/store"
)

// EnrollmentPoint is an enrollment point as the API shows it.
type EnrollmentPoint struct {
	Name            string         `json:"name"`
	Version         int            `json:"version" doc:"Of the settings; counts from 1"`
	URL             string         `json:"url" doc:"What devices are configured with"`
	Disabled        bool           `json:"disabled" doc:"Every request is refused"`
	Issuer          string         `json:"issuer" doc:"Who signs; empty if there is none"`
	Profile         string         `json:"profile"`
	StaticChallenge bool           `json:"static_challenge" doc:"Whether there is one; it is never shown"`
	Settings        map[string]any `json:"settings" doc:"The settings document"`
	Webhook         *PointWebhook  `json:"webhook,omitempty" doc:"Absent without one"`
	RA              *RACertificate `json:"ra,omitempty" doc:"What devices encrypt to; absent before the first one has asked"`
	ChangedAt       time.Time      `json:"changed_at"`
	ChangedBy       string         `json:"changed_by"`
}

// PointWebhook is what there is to say of a point's webhook beside its settings.
type PointWebhook struct {
	Secret  bool       `json:"secret" doc:"Whether there is one; it is never shown. Without it nothing is sent, and what the webhook decides on is refused"`
	Waiting int        `json:"waiting" doc:"Notifications that wait to be delivered"`
	Oldest  *time.Time `json:"oldest,omitempty" doc:"When the oldest of them was made"`
	Error   string     `json:"error,omitempty" doc:"Why that could not be delivered the last time"`
}

// RACertificate is the certificate of a registration authority as the API shows it.
type RACertificate struct {
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	PEM      string    `json:"certificate"`
}

func (a *api) point(p *enrollment.Point, backlogs []store.NotificationBacklog) (EnrollmentPoint, error) {
	out := EnrollmentPoint{
		Name: p.Name(), Version: p.Version(), URL: a.Server.PublicURL + "/scep/" + p.Name(), Disabled: p.Config().Disabled, Profile: p.Profile(), StaticChallenge: p.HasStatic(),
	}
	out.ChangedAt, out.ChangedBy = p.Changed()
	if p.Webhook() != nil {
		out.Webhook = &PointWebhook{Secret: p.HasWebhookSecret()}
		for _, b := range backlogs {
			if b.Point == p.Name() {
				out.Webhook.Waiting, out.Webhook.Oldest, out.Webhook.Error = b.Waiting, &b.Oldest, b.Error
			}
		}
	}
	text, err := json.Marshal(p.Config())
	if err == nil {
		err = json.Unmarshal(text, &out.Settings)
	}
	if err != nil {
		return out, err
	}
	if i, err := a.Issuers.Current().Issuer(p.Issuer()); err == nil {
		out.Issuer = i.Name
		if c := a.RAs.Certificate(i.ID); c != nil {
			out.RA = &RACertificate{Serial: hex.EncodeToString(c.SerialNumber.Bytes()), NotAfter: c.NotAfter, PEM: string(issuer.EncodePEM(c))}
		}
	}
	return out, nil
}

type pointsOutput struct {
	Body struct {
		Points []EnrollmentPoint `json:"points"`
	}
}

func (a *api) listPoints(ctx context.Context, _ *struct{}) (*pointsOutput, error) {
	backlogs, err := a.Enrollments.NotificationBacklogs(ctx)
	if err != nil {
		return nil, err
	}
	out := &pointsOutput{}
	out.Body.Points = []EnrollmentPoint{}
	for _, p := range a.Points.All() {
		point, err := a.point(p, backlogs)
		if err != nil {
			return nil, err
		}
		out.Body.Points = append(out.Body.Points, point)
	}
	return out, nil
}

// PointInput names an enrollment point.
type PointInput struct {
	Point string `path:"point" doc:"The enrollment point's name" maxLength:"63"`
}

type pointOutput struct {
	ETag string `header:"ETag" doc:"The version in quotation marks, for If-Match"`
	Body EnrollmentPoint
}

func (a *api) getPoint(ctx context.Context, in *PointInput) (*pointOutput, error) {
	p, err := a.Points.Point(in.Point)
	if err != nil {
		return nil, err
	}
	var backlogs []store.NotificationBacklog
	if p.Webhook() != nil {
		if backlogs, err = a.Enrollments.NotificationBacklogs(ctx); err != nil {
			return nil, err
		}
	}
	body, err := a.point(p, backlogs)
	return &pointOutput{ETag: etag(p.Version()), Body: body}, err
}

type pointVersionsOutput struct {
	Body struct {
		Versions []SettingsVersion `json:"versions" doc:"Newest first"`
	}
}

func (a *api) pointHistory(ctx context.Context, name string) ([]pki.PointVersion, error) {
	history, err := a.Enrollments.PointHistory(ctx, name)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.Wrap(fault.NotFound, err, "there is no enrollment point %q", name).WithField("point")
	}
	return history, err
}

func (a *api) listPointVersions(ctx context.Context, in *PointInput) (*pointVersionsOutput, error) {
	history, err := a.pointHistory(ctx, in.Point)
	if err != nil {
		return nil, err
	}
	out := &pointVersionsOutput{}
	out.Body.Versions = []SettingsVersion{}
	for i, v := range history {
		version := SettingsVersion{Version: v.Version, Changed: v.CreatedAt, ChangedBy: v.CreatedBy, Fields: []string{}}
		if i+1 < len(history) {
			if version.Fields, err = changedFields(enrollment.ReadConfig, history[i+1].Config, v.Config); err != nil {
				return nil, err
			}
		}
		out.Body.Versions = append(out.Body.Versions, version)
	}
	return out, nil
}

type pointVersionInput struct {
	PointInput
	Version int `path:"version" minimum:"1"`
}

// PointVersion is a version of an enrollment point's settings.
type PointVersion struct {
	Name      string         `json:"name"`
	Version   int            `json:"version"`
	Changed   time.Time      `json:"changed"`
	ChangedBy string         `json:"changed_by"`
	Settings  map[string]any `json:"settings" doc:"The settings document, as it was written"`
}

type pointVersionOutput struct{ Body PointVersion }

func (a *api) getPointVersion(ctx context.Context, in *pointVersionInput) (*pointVersionOutput, error) {
	history, err := a.pointHistory(ctx, in.Point)
	if err != nil {
		return nil, err
	}
	for _, v := range history {
		if v.Version == in.Version {
			out := &pointVersionOutput{Body: PointVersion{Name: v.Name, Version: v.Version, Changed: v.CreatedAt, ChangedBy: v.CreatedBy}}
			return out, json.Unmarshal(v.Config, &out.Body.Settings)
		}
	}
	return nil, fault.New(fault.NotFound, "the enrollment point %q has no version %d", in.Point, in.Version).WithField("version").
		WithHint("the newest is %d", history[0].Version)
}

// PointSettings is a point's settings document as it was sent. Package enrollment reads it.
type PointSettings struct{ rawDocument }

// Schema describes [enrollment.Config], from the type itself.
func (PointSettings) Schema(r huma.Registry) *huma.Schema {
	return documentSchema[enrollment.Config](r, "EnrollmentPointConfig", "What an administrator settles for an enrollment point; docs/scep.md explains every field")
}

type putPointInput struct {
	PointInput
	IfMatch     string `header:"If-Match" doc:"ETag of the version that the change was made on; * for whichever. Needed to change a point that exists." maxLength:"100"`
	IfNoneMatch string `header:"If-None-Match" doc:"* creates the point only if there is none" maxLength:"100"`
	Body        struct {
		Settings        PointSettings `json:"settings" doc:"The settings document, whole"`
		StaticChallenge *string       `json:"static_challenge,omitempty" doc:"The new static challenge; empty takes it away; absent keeps what there is" maxLength:"255"`
	}
}

func (a *api) putPoint(ctx context.Context, in *putPointInput) (*pointOutput, error) {
	c, err := a.pointConfig(in.Body.Settings, in.Point)
	if err != nil {
		return nil, err
	}
	if err := wholly(principal(ctx)); err != nil {
		return nil, err
	}
	current, err := a.Points.Point(in.Point)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	version, err := pointVersionOf(in, current)
	if err != nil {
		return nil, err
	}
	if current != nil && version == current.Version() && in.Body.StaticChallenge == nil {
		if changes, err := enrollment.Diff(current.Config(), c); err != nil || len(changes) == 0 { // no new version
			out, showErr := a.getPoint(ctx, &in.PointInput)
			return out, errors.Join(err, showErr)
		}
	}
	now, err := a.Clock.Check()
	if err != nil {
		return nil, err
	}
	_, err = a.Points.Put(ctx, enrollment.Change{
		Principal: principal(ctx), RequestID: problem.RequestID(ctx), Now: now, Config: c, Version: version, Static: in.Body.StaticChallenge,
	})
	if errors.Is(err, store.ErrStale) {
		return nil, &precondition{status: http.StatusPreconditionFailed, error: fault.Wrap(fault.Conflict, err, "the enrollment point %q has changed in between", in.Point).
			WithHint("read it again, and make the change on what it is now")}
	}
	if err != nil {
		return nil, err
	}
	if err := a.Sync(ctx); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the settings were written, but this server has not learned of them yet")
	}
	return a.getPoint(ctx, &in.PointInput)
}

type webhookSecretInput struct {
	PointInput
	Body struct {
		Overlap string `json:"overlap,omitempty" doc:"How long the secret before signs messages, too, as in 1d: at most 30d. Default: not at all" maxLength:"40"`
	}
}

// WebhookSecret is what the receiver of a webhook needs to know that messages are ours.
type WebhookSecret struct {
	Point   string `json:"point"`
	Version int    `json:"version" doc:"Of the point, which has a new one"`
	Secret  string `json:"secret" doc:"The key of the HMAC-SHA256; shown this once"`
}

type webhookSecretOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         WebhookSecret
}

const maxOverlap = profile.Duration(30 * 24 * time.Hour)

// putWebhookSecret makes a new secret for a point's webhook.
func (a *api) putWebhookSecret(ctx context.Context, in *webhookSecretInput) (*webhookSecretOutput, error) {
	if err := wholly(principal(ctx)); err != nil {
		return nil, err
	}
	overlap := profile.Duration(0)
	if text := in.Body.Overlap; text != "" {
		var err error
		if overlap, err = profile.ParseDuration(text); err != nil || overlap < 0 || overlap > maxOverlap {
			return nil, fault.New(fault.BadRequest, "it is a time such as 1d or 12h, at most %s", maxOverlap).WithField("overlap")
		}
	}
	p, err := a.Points.Point(in.Point)
	if err != nil {
		return nil, err
	}
	if p.Webhook() == nil {
		return nil, fault.New(fault.Conflict, "the enrollment point %q has no webhook", in.Point).WithHint("set webhook.url first")
	}
	now, err := a.Clock.Check()
	if err != nil {
		return nil, err
	}
	secret := enrollment.NewWebhookSecret()
	v, err := a.Points.Put(ctx, enrollment.Change{
		Principal: principal(ctx), RequestID: problem.RequestID(ctx), Now: now, Config: p.Config(), Version: p.Version(),
		WebhookSecret: &secret, WebhookOverlap: time.Duration(overlap),
	})
	if err != nil {
		return nil, err
	}
	if err := a.Sync(ctx); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the secret was written, but this server has not learned of it yet; make another one")
	}
	return &webhookSecretOutput{CacheControl: "no-store", Body: WebhookSecret{Point: v.Name, Version: v.Version, Secret: secret}}, nil
}

// pointVersionOf returns the version that a change was made on, by its preconditions; current is nil for a new point.
func pointVersionOf(in *putPointInput, current *enrollment.Point) (int, error) {
	version := 0
	if current != nil {
		version = current.Version()
	}
	if err := onlyIfNone(in.IfNoneMatch, in.IfMatch); err != nil {
		return 0, err
	}
	switch {
	case in.IfNoneMatch == "*" && current != nil:
		return 0, &precondition{status: http.StatusPreconditionFailed, error: fault.New(fault.Conflict, "there is an enrollment point %q already", in.Point)}
	case in.IfMatch == "*":
		return version, nil
	case in.IfMatch == "" && current == nil:
		return 0, nil
	case in.IfMatch == "":
		return 0, needsMatch(fault.New(fault.Conflict, "there is an enrollment point %q already", in.Point))
	}
	return matchVersion(in.IfMatch, "an enrollment point", 1)
}

// pointConfig reads and checks the settings of a point, as far as they can be without writing them. They may name it, and
// no other; with an empty name they must.
func (a *api) pointConfig(body PointSettings, name string) (enrollment.Config, error) {
	c, err := enrollment.ParseConfig(body.raw)
	if err != nil {
		return c, err
	}
	if c.Name == "" {
		c.Name = name
	}
	if name != "" && c.Name != name {
		return c, fault.New(fault.BadRequest, "the settings name another point than the address").WithField("name").
			WithHint("a point is not renamed: devices have its address; create another one, and disable this one when they have moved")
	}
	if err := c.Validate(a.Now()); err != nil {
		return c, err
	}
	if c.Issuer != "" {
		i, err := a.Issuers.Current().Issuer(c.Issuer)
		if err != nil {
			return c, err
		}
		if i.Root {
			return c, fault.New(fault.PolicyRefused, "the root %q issues CA certificates only", i.Name).WithField("issuer")
		}
	}
	if c.Profile != "" {
		_, err := a.deviceProfile(c.Profile)
		return c, err
	}
	return c, nil
}

type checkPointInput struct {
	Body struct {
		Settings PointSettings `json:"settings" doc:"The settings document, whole, with the point's name"`
	}
}

// PointCheck is what settings would change.
type PointCheck struct {
	Name     string          `json:"name"`
	Version  int             `json:"version" doc:"The version in force; 0 for a new point"`
	Changes  []ProfileChange `json:"changes" doc:"What differs from the version in force"`
	Warnings []string        `json:"warnings,omitempty" doc:"What is allowed, and worth a thought"`
}

type checkPointOutput struct{ Body PointCheck }

func (a *api) checkPoint(_ context.Context, in *checkPointInput) (*checkPointOutput, error) {
	c, err := a.pointConfig(in.Body.Settings, "")
	if err != nil {
		return nil, err
	}
	out := &checkPointOutput{Body: PointCheck{Name: c.Name}}
	before := enrollment.Config{}
	static := false
	if p, err := a.Points.Point(c.Name); err == nil {
		before, out.Body.Version, static = p.Config(), p.Version(), p.HasStatic()
	} else if !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	changes, err := enrollment.Diff(before, c)
	if err != nil {
		return nil, err
	}
	out.Body.Changes, out.Body.Warnings = showChanges(changes), c.Warnings(static, a.Now())
	return out, nil
}
