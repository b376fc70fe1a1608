package rest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
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

// Challenge is a one-time enrollment challenge as the API shows it.
type Challenge struct {
	ID        string     `json:"id"`
	Point     string     `json:"point"`
	Profile   string     `json:"profile,omitempty" doc:"Absent: the point's"`
	Subject   string     `json:"subject,omitempty" doc:"The only subject that it allows; absent: any that the profile allows"`
	SANs      []string   `json:"sans,omitempty" doc:"The subject alternative names of the certificate"`
	Device    string     `json:"device,omitempty"`
	Note      string     `json:"note,omitempty"`
	Batch     string     `json:"batch,omitempty" doc:"What was made together has the same one"`
	Status    string     `json:"status" enum:"open,used,expired,revoked"`
	CreatedAt time.Time  `json:"created_at"`
	CreatedBy string     `json:"created_by"`
	ExpiresAt time.Time  `json:"expires_at"`
	UsedAt    *time.Time `json:"used_at,omitempty"`
	UsedBy    string     `json:"used_by,omitempty" doc:"Id of the certificate; absent while its request waits"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
	Failures  int        `json:"failures" doc:"How often it was tried with a wrong secret"`
	Challenge string     `json:"challenge,omitempty" doc:"The challenge itself, for the device; shown once, when it is created"`
}

func (a *api) challenge(c pki.Challenge) Challenge {
	out := Challenge{
		ID: c.ID, Point: c.Point, Profile: c.Profile, Subject: c.Subject, SANs: c.SANs, Device: c.Device, Note: c.Note, Batch: c.Batch, Status: "open",
		CreatedAt: c.CreatedAt, CreatedBy: c.CreatedBy, ExpiresAt: c.ExpiresAt, Failures: c.Failures,
	}
	if c.UsedBy != (pki.Fingerprint{}) {
		out.UsedBy = c.UsedBy.String()
	}
	switch {
	case !c.UsedAt.IsZero():
		out.Status, out.UsedAt = "used", &c.UsedAt
	case !c.RevokedAt.IsZero():
		out.Status, out.RevokedAt = "revoked", &c.RevokedAt
	case !a.Now().Before(c.ExpiresAt):
		out.Status = "expired"
	}
	return out
}

// ChallengeWish is what a one-time challenge is to be for.
type ChallengeWish struct {
	Profile  string   `json:"profile,omitempty" doc:"Another profile than the point's" maxLength:"100"`
	Subject  string   `json:"subject,omitempty" doc:"Allow this subject alone, as in CN=sensor-17,O=Example" maxLength:"1000"`
	SANs     []string `json:"sans,omitempty" doc:"Give the certificate exactly these names, as in DNS:sensor-17.example.com" maxItems:"100"`
	Device   string   `json:"device,omitempty" doc:"The device that it is for, which the registry then knows" maxLength:"200"`
	Note     string   `json:"note,omitempty" doc:"For people" maxLength:"200"`
	Validity string   `json:"validity,omitempty" doc:"How long it can be used, as in 7d; 24h if absent, at most 1y" maxLength:"32"`
}

// CreateChallengeBody is ChallengeWish at a point.
type CreateChallengeBody struct {
	Point string `json:"point,omitempty" doc:"The enrollment point that it opens; default if absent" maxLength:"63"`
	ChallengeWish
}

type createChallengeInput struct{ Body CreateChallengeBody }

type challengeOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         Challenge
}

// How long a challenge can be used.
const (
	defaultChallengeLife = 24 * time.Hour
	maxChallengeLife     = 365 * 24 * time.Hour
)

// challenger makes challenges for one point.
type challenger struct {
	*api
	by      pki.Principal
	now     time.Time
	point   *enrollment.Point
	issuer  *issuer.Issuer
	devices map[string]pki.Device // what the registry has of those that are wished for
}

// challenger returns one that fulfills these wishes. The registry is asked about all devices at once.
func (a *api) challenger(ctx context.Context, point string, wishes ...ChallengeWish) (*challenger, error) {
	now, err := a.Clock.Check()
	if err != nil {
		return nil, err
	}
	if point == "" {
		point = enrollment.DefaultPoint
	}
	c := &challenger{api: a, by: principal(ctx), now: now.Truncate(time.Microsecond)}
	if c.point, err = a.Points.Point(point); err != nil {
		return nil, err
	}
	if !c.point.Accepts(enrollment.ChallengeOneTime) {
		return nil, fault.New(fault.Conflict, "the enrollment point %q accepts no one-time challenges", point).WithField("point")
	}
	if c.issuer, err = a.Issuers.Current().Issuer(c.point.Issuer()); err != nil {
		return nil, err
	}
	// Nobody is to type into devices what opens nothing.
	if err := a.CA.Usable(c.issuer.Name); fault.Is(err, fault.PolicyRefused) {
		return nil, fault.Wrap(fault.Conflict, err, "a challenge of the enrollment point %q would open nothing: %s", point, fault.Public(err).Detail).WithField("point").
			WithHint("give the point an issuer that can issue, and make challenges then")
	} else if err != nil {
		return nil, err
	}
	var ids []string
	for _, w := range wishes {
		if w.Device != "" && enrollment.CheckDeviceID(w.Device) == nil {
			ids = append(ids, w.Device)
		}
	}
	c.devices, err = a.Enrollments.DevicesByID(ctx, ids)
	return c, err
}

// make draws a challenge whose names can stand together with those of its device and its point, and that the profile
// allows: what is mistyped shows now, and not on the device. Nothing is written.
func (c *challenger) make(w ChallengeWish) (text string, record pki.Challenge, err error) {
	wanted := cmp.Or(w.Profile, c.point.Profile())
	if p, err := c.deviceProfile(wanted); err != nil {
		return "", record, err
	} else if p.Disabled() {
		return "", record, fault.New(fault.Conflict, "the challenge would open nothing: the profile %s is disabled", wanted).WithField("profile")
	}
	if err := auth.MayUse(c.by, c.issuer.Name, wanted); err != nil {
		return "", record, err
	}
	if w.Device != "" {
		if err := enrollment.CheckDeviceID(w.Device); err != nil {
			return "", record, fault.Wrap(fault.BadRequest, err, "%v", err).WithField("device")
		}
	}
	if err := oneLine("note", w.Note); err != nil {
		return "", record, err
	}
	life := defaultChallengeLife
	if w.Validity != "" {
		if life, err = parseValidity(w.Validity); err != nil {
			return "", record, err
		}
		if life > maxChallengeLife {
			return "", record, fault.New(fault.BadRequest, "a challenge can be used for at most %s", profile.Duration(maxChallengeLife)).WithField("validity")
		}
	}
	own, err := enrollment.ParseBinding("the challenge", w.Subject, w.SANs)
	if err != nil {
		return "", record, err
	}
	if err := c.checkNames(w.Device, wanted, own); err != nil {
		return "", record, err
	}
	text, record = enrollment.NewChallenge()
	if own.Subject != nil {
		record.Subject = profile.FormatSubject(own.Subject)
	}
	record.Point, record.Profile, record.SANs, record.Device, record.Note = c.point.Name(), w.Profile, w.SANs, w.Device, w.Note
	record.CreatedAt, record.CreatedBy, record.ExpiresAt = c.now, c.by.Name, c.now.Add(life)
	return text, record, nil
}

func (c *challenger) checkNames(device, profileName string, own enrollment.Binding) error {
	record, known := c.devices[device]
	switch {
	case !known:
		record.ID = device
	case !record.Status.Served():
		return fault.Public(store.RefuseDevice(device)).WithField("device")
	}
	recorded, err := enrollment.ParseBinding("the device's record", record.Subject, record.SANs)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the names of device %q", device)
	}
	bindings := []enrollment.Binding{recorded, own}
	if device != "" || c.point.Identity() == enrollment.IdentityNone { // else the request says which device it is
		made, err := c.point.Render(record)
		if err != nil {
			f := fault.Public(err)
			return f.WithField("device").WithHint("name the device, and have the registry say of it what the point's names need")
		}
		bindings = append(bindings, made)
	}
	all, err := enrollment.Combine(bindings...)
	if err != nil || !all.Binds() {
		return err
	}
	return c.CA.CheckNames(ca.Request{
		Principal: pki.Principal{Name: "scep:" + c.point.Name(), Role: pki.RoleEnroller}, Protocol: "scep",
		Issuer: c.issuer.Name, Profile: profileName, Subject: all.Subject, SANs: all.SANs, Device: device,
	})
}

func (a *api) createChallenge(ctx context.Context, in *createChallengeInput) (*challengeOutput, error) {
	by, err := a.challenger(ctx, in.Body.Point, in.Body.ChallengeWish)
	if err != nil {
		return nil, err
	}
	text, c, err := by.make(in.Body.ChallengeWish)
	if err != nil {
		return nil, err
	}
	detail := map[string]string{"point": c.Point, "expires_at": c.ExpiresAt.Format(time.RFC3339)}
	for name, value := range map[string]string{"subject": c.Subject, "sans": strings.Join(c.SANs, ", "), "device": c.Device, "profile": c.Profile, "note": c.Note} {
		if value != "" {
			detail[name] = value
		}
	}
	if err := a.Enrollments.CreateChallenges(ctx, []pki.Challenge{c}, a.record(ctx, by.now, audit.ActionChallenge, "challenge/"+c.ID, detail)); err != nil {
		return nil, err
	}
	out := &challengeOutput{CacheControl: "no-store", Body: a.challenge(c)}
	out.Body.Challenge = text
	return out, nil
}

// maxChallenges is how many challenges one request makes.
const maxChallenges = 1000

type createChallengesInput struct {
	Body struct {
		Point      string          `json:"point,omitempty" doc:"The enrollment point that they open; default if absent" maxLength:"63"`
		Batch      string          `json:"batch,omitempty" doc:"What they are found and revoked by together: letters, digits, hyphens. Several requests may name the same one; the server draws it if absent" maxLength:"64"`
		DryRun     bool            `json:"dry_run,omitempty" doc:"Check everything, and make nothing"`
		Challenges []ChallengeWish `json:"challenges" minItems:"1" maxItems:"1000"`
	}
}

// MadeChallenge is a challenge of many.
type MadeChallenge struct {
	ID        string    `json:"id"`
	Device    string    `json:"device,omitempty"`
	Subject   string    `json:"subject,omitempty"`
	ExpiresAt time.Time `json:"expires_at"`
	Challenge string    `json:"challenge" doc:"The challenge itself, for the device; shown once"`
}

type challengesMadeOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         struct {
		Batch      string          `json:"batch"`
		Challenges []MadeChallenge `json:"challenges" doc:"In the order of the request; none in a dry run"`
	}
}

var batchForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,63}$`)

func (a *api) createChallenges(ctx context.Context, in *createChallengesInput) (*challengesMadeOutput, error) {
	if in.Body.Batch == "" {
		in.Body.Batch = rand.Text()[:16]
	}
	if !batchForm.MatchString(in.Body.Batch) {
		return nil, fault.New(fault.BadRequest, "a batch is called by 1 to 64 letters, digits and hyphens").WithField("batch")
	}
	by, err := a.challenger(ctx, in.Body.Point, in.Body.Challenges...)
	if err != nil {
		return nil, err
	}
	out := &challengesMadeOutput{CacheControl: "no-store"}
	out.Body.Batch, out.Body.Challenges = in.Body.Batch, []MadeChallenge{}
	records := make([]pki.Challenge, len(in.Body.Challenges))
	var wrong []*fault.Error
	for i, wish := range in.Body.Challenges {
		text, c, err := by.make(wish)
		if f, ok := errors.AsType[*fault.Error](err); ok && f.Kind != fault.Internal && f.Kind != fault.Unavailable {
			if wrong = append(wrong, ofRow(f, i)); len(wrong) == maxWrongRows {
				break
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		c.Batch = in.Body.Batch
		records[i] = c
		out.Body.Challenges = append(out.Body.Challenges, MadeChallenge{ID: c.ID, Device: c.Device, Subject: c.Subject, ExpiresAt: c.ExpiresAt, Challenge: text})
	}
	if len(wrong) > 0 {
		return nil, &wrongRows{wrong}
	}
	if in.Body.DryRun {
		out.Body.Challenges = []MadeChallenge{}
		return out, nil
	}
	detail := map[string]string{"point": by.point.Name(), "batch": in.Body.Batch, "challenges": strconv.Itoa(len(records))}
	if err := a.Enrollments.CreateChallenges(ctx, records, a.record(ctx, by.now, audit.ActionChallenge, "challenge_batch/"+in.Body.Batch, detail)); err != nil {
		return nil, err
	}
	return out, nil
}

// ofRow tells which of many a fault is about.
func ofRow(f *fault.Error, i int) *fault.Error {
	field := fmt.Sprintf("challenges[%d]", i)
	if f.Field != "" {
		field += "." + f.Field
	}
	return f.WithField(field)
}

// maxWrongRows is how many rows a refusal names.
const maxWrongRows = 20

// wrongRows are the faults of rows, one or more. To whoever knows it not it is the first.
type wrongRows struct{ rows []*fault.Error }

func (w *wrongRows) Error() string { return w.rows[0].Error() }
func (w *wrongRows) Unwrap() error { return w.rows[0] }

// describe has a document tell of all rows.
func (w *wrongRows) describe(d *problem.Document) {
	if len(w.rows) == 1 {
		return
	}
	d.Detail, d.Hint = fmt.Sprintf("%d rows are wrong", len(w.rows)), ""
	if len(w.rows) == maxWrongRows {
		d.Detail = fmt.Sprintf("%d rows are wrong, and perhaps more", len(w.rows))
	}
	for _, f := range w.rows {
		message := f.Detail
		if f.Hint != "" {
			message += " (" + f.Hint + ")"
		}
		d.Errors = append(d.Errors, problem.Error{Location: f.Field, Message: message})
	}
}

type listChallengesInput struct {
	Point  string `query:"point" doc:"Of this enrollment point" maxLength:"63"`
	Device string `query:"device" doc:"Of this device" maxLength:"200"`
	Batch  string `query:"batch" doc:"Of this batch" maxLength:"64"`
	Open   bool   `query:"open" doc:"Only those that can be used"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Challenges on a page"`
	Cursor string `query:"cursor" doc:"As the page before gave it in next" maxLength:"512"`
}

type challengesOutput struct {
	Body struct {
		Challenges []Challenge `json:"challenges"`
		Next       string      `json:"next,omitempty" doc:"Cursor of the next page; absent on the last"`
	}
}

func (a *api) listChallenges(ctx context.Context, in *listChallengesInput) (*challengesOutput, error) {
	if err := wholly(principal(ctx)); err != nil {
		return nil, err
	}
	done, err := a.searches.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	f := store.ChallengeFilter{Point: in.Point, Device: in.Device, Batch: in.Batch}
	if in.Open {
		f.OpenAt = a.Now()
	}
	list, next, err := a.Enrollments.ListChallenges(ctx, f, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, err
	}
	out := &challengesOutput{}
	out.Body.Challenges, out.Body.Next = shown(list, a.challenge), next
	return out, nil
}

type challengeIDInput struct {
	ID string `path:"id" doc:"The challenge's id" maxLength:"64"`
}

func (a *api) revokeChallenge(ctx context.Context, in *challengeIDInput) (*struct{}, error) {
	now, err := a.Clock.Check()
	if err != nil {
		return nil, err
	}
	c, err := a.Enrollments.Challenge(ctx, strings.ToUpper(in.ID))
	if err != nil {
		return nil, err
	}
	if err := a.mayDecide(ctx, c.Point, c.Profile); err != nil {
		return nil, err
	}
	return nil, a.Enrollments.RevokeChallenge(ctx, c.ID, now, a.record(ctx, now, audit.ActionChallengeEnd, "challenge/"+c.ID, map[string]string{"point": c.Point}))
}

type revokeChallengesInput struct {
	Body struct {
		Batch  string `json:"batch,omitempty" doc:"Those of this batch" maxLength:"64"`
		Device string `json:"device,omitempty" doc:"Those of this device" maxLength:"200"`
		Point  string `json:"point,omitempty" doc:"Those of this enrollment point" maxLength:"63"`
	}
}

type revokedChallengesOutput struct {
	Body struct {
		Revoked int `json:"revoked" doc:"How many could be used until now"`
	}
}

func (a *api) revokeChallenges(ctx context.Context, in *revokeChallengesInput) (*revokedChallengesOutput, error) {
	if err := wholly(principal(ctx)); err != nil {
		return nil, err
	}
	f := store.ChallengeFilter{Batch: in.Body.Batch, Device: in.Body.Device, Point: in.Body.Point}
	if f == (store.ChallengeFilter{}) {
		return nil, fault.New(fault.BadRequest, "nothing says which challenges").WithField("batch").WithHint("name a batch, a device or an enrollment point")
	}
	now, err := a.Clock.Check()
	if err != nil {
		return nil, err
	}
	f.OpenAt = now
	detail := map[string]string{}
	for name, value := range map[string]string{"batch": f.Batch, "device": f.Device, "point": f.Point} {
		if value != "" {
			detail[name] = value
		}
	}
	out := &revokedChallengesOutput{}
	out.Body.Revoked, err = a.Enrollments.RevokeChallenges(ctx, f, now, a.record(ctx, now, audit.ActionChallengeEnd, "challenges", detail))
	return out, err
}
