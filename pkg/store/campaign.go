package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// Campaigns keeps the campaigns that revoke many certificates, and does their steps. Package campaign drives them.
type Campaigns interface {
	// CreateCampaign writes a campaign, which stands at its beginning whatever the caller says. When it has a key, that
	// key is blocked in the same transaction, so that no certificate for it can be issued behind the campaign's back:
	// PolicyRefused when the key is one of ours. Conflict when the id exists.
	CreateCampaign(ctx context.Context, c Campaign, records ...audit.Record) error
	// Campaign returns the campaign with this id. NotFound when there is none.
	Campaign(ctx context.Context, id string) (Campaign, error)
	// ListCampaigns returns campaigns, newest first, at most limit.
	ListCampaigns(ctx context.Context, limit int) ([]Campaign, error)
	// RunningCampaigns returns the campaigns that are running, oldest first. It reads an index only.
	RunningCampaigns(ctx context.Context) ([]Campaign, error)
	// SetCampaignState pauses, resumes or cancels a campaign, as CampaignTransition allows. It returns it as it is then.
	SetCampaignState(ctx context.Context, id string, to CampaignState, at time.Time, record audit.Record) (Campaign, error)
	// NextCertificates returns certificates of a filter without their DER, oldest first: in the order of IssuedAt, then
	// serial number (as octets), then issuer. It begins behind the position, and returns at most limit.
	NextCertificates(ctx context.Context, f CertificateFilter, after CertificatePosition, limit int) ([]pki.Certificate, error)
	// StepCampaign changes the status of certificates, each with its record, and moves the campaign on, in one
	// transaction. Conflict with ErrStale when the campaign is not running, or is no longer where the caller has read it:
	// then nothing was done. Certificates that pki.Transition refuses, or that are not there, are skipped and counted, and
	// their records are not written.
	StepCampaign(ctx context.Context, s CampaignStep) (CampaignOutcome, error)
	// Settle returns when every write that had begun before the call, by this process or another replica, has ended. What
	// is read afterwards holds all certificates for a key that were issued by those who had not seen that it is blocked.
	// Unavailable when the context ends before.
	Settle(ctx context.Context) error
	// UnblockKey admits a public key again. NotFound when it is not blocked, PolicyRefused when it is one of ours,
	// Conflict while a campaign for it is running or paused.
	UnblockKey(ctx context.Context, spkiHash [32]byte, record audit.Record) error
}

// CampaignState says whether a campaign goes on. The zero value is none.
type CampaignState int

// A campaign's states. It leaves the last two no more.
const (
	CampaignRunning   CampaignState = 1
	CampaignPaused    CampaignState = 2
	CampaignDone      CampaignState = 3
	CampaignCancelled CampaignState = 4
)

var campaignStates = [...]string{"none", "running", "paused", "done", "cancelled"}

// String returns "running", "paused", "done" or "cancelled".
func (s CampaignState) String() string {
	return campaignStates[min(max(s, 0), CampaignCancelled)]
}

// Ended reports whether nothing more will happen.
func (s CampaignState) Ended() bool { return s == CampaignDone || s == CampaignCancelled }

// CampaignTransition refuses with a Conflict what a person may not do to a campaign in the state from.
func CampaignTransition(from, to CampaignState) error {
	switch {
	case from.Ended():
		return fault.New(fault.Conflict, "the campaign has ended: it is %s", from)
	case from == to:
		return fault.New(fault.Conflict, "the campaign is %s already", from)
	case to != CampaignRunning && to != CampaignPaused && to != CampaignCancelled:
		return fault.New(fault.BadRequest, "a campaign cannot be set to %s", to)
	}
	return nil
}

// Campaign revokes every certificate of a selection, step by step. What it is told never changes; how far it is does.
type Campaign struct {
	ID    string
	State CampaignState
	// Selection is what it revokes, narrowed to what its beginner may touch.
	Selection CertificateFilter
	// Foreign says that a later release wrote the selection and this program cannot read it: it must not run the campaign.
	Foreign bool
	// Query is the selection as people see it: a JSON object, kept octet by octet.
	Query string
	// Key is the public key that was blocked when it began, which Selection then names too; nil: none.
	Key            *[32]byte
	Reason         pki.Reason
	InvalidityDate time.Time // zero: unknown
	// ChangeReasons has it change also certificates that are revoked already for another reason.
	ChangeReasons bool
	Expected      int64 // how many certificates the dry run counted

	CreatedAt time.Time
	CreatedBy string // the principal's name, and the rest of what its records say of it
	Role      string
	Source    string
	RequestID string

	Revoked   int64               // certificates that it changed
	Skipped   int64               // certificates that had changed since the page was read, so that nothing was left to do
	Step      int64               // counts steps
	Position  CertificatePosition // of the last certificate that was looked at
	LookBack  bool                // it has been through once and looks for what came meanwhile
	ChangedAt time.Time           // of the newest step or change of state
	EndedAt   time.Time           // zero: it has not ended
}

// CertificatePosition is a place in the order of issuance. The zero value is before all.
type CertificatePosition struct {
	IssuedAt time.Time
	Serial   pki.SerialNumber
	IssuerID int64
}

// PositionOf returns the place of a certificate.
func PositionOf(c pki.Certificate) CertificatePosition {
	return CertificatePosition{c.IssuedAt, c.Serial, c.IssuerID}
}

// CampaignStep is one transaction of a campaign.
type CampaignStep struct {
	ID       string
	Step     int64          // where the campaign stood when it was read
	Changes  []StatusChange // with their records
	Position CertificatePosition
	LookBack bool
	At       time.Time
	// End has the campaign be done, with this record. It takes no changes.
	End *audit.Record
}

// CampaignOutcome is what a step has done.
type CampaignOutcome struct {
	Campaign Campaign          // after the step
	Changed  []pki.Certificate // without their DER, in the order of Changes
}

// errCampaignMoved refuses a step of a campaign that is not where the caller has read it.
func errCampaignMoved(c Campaign) error {
	return fault.Wrap(fault.Conflict, ErrStale, "the campaign is %s at step %d", c.State, c.Step)
}

// CheckStep refuses a step that does not fit the campaign as it stands. Stores call it inside their transaction.
func (c Campaign) CheckStep(s CampaignStep) error {
	if c.State != CampaignRunning || c.Step != s.Step {
		return errCampaignMoved(c)
	}
	if s.End != nil && len(s.Changes) > 0 {
		return fault.New(fault.Internal, "a campaign's last step cannot change certificates")
	}
	return nil
}

// After returns the campaign as a step leaves it that changed so many of its certificates.
func (c Campaign) After(s CampaignStep, changed int) Campaign {
	c.Step++
	c.Revoked += int64(changed)
	c.Skipped += int64(len(s.Changes) - changed)
	c.Position, c.LookBack, c.ChangedAt = s.Position, s.LookBack, s.At
	if s.End != nil {
		c.State, c.EndedAt = CampaignDone, s.At
	}
	return c
}

// selectionForm is how a selection is kept: in words of JSON, so that a copy of the store in another database means the
// same. New fields of CertificateFilter need one here, which a test sees to.
type selectionForm struct {
	IssuerIDs       []int64      `json:"issuer_ids,omitempty"`
	Profiles        []string     `json:"profiles,omitempty"`
	Status          []pki.Status `json:"status,omitempty"`
	Text            string       `json:"text,omitempty"`
	Serial          string       `json:"serial,omitempty"`
	Fingerprint     string       `json:"fingerprint,omitempty"`
	SPKIHash        string       `json:"spki_hash,omitempty"`
	Requester       string       `json:"requester,omitempty"`
	Protocol        string       `json:"protocol,omitempty"`
	Device          string       `json:"device,omitempty"`
	NotAfterFrom    time.Time    `json:"not_after_from,omitzero"`
	NotAfterTo      time.Time    `json:"not_after_to,omitzero"`
	IssuedFrom      time.Time    `json:"issued_from,omitzero"`
	IssuedTo        time.Time    `json:"issued_to,omitzero"`
	WithoutReserved bool         `json:"without_reserved,omitempty"`
	GoodFrom        time.Time    `json:"good_from,omitzero"`
	GoodTo          time.Time    `json:"good_to,omitzero"`
}

// EncodeSelection returns a filter as campaigns keep it.
func EncodeSelection(f CertificateFilter) ([]byte, error) {
	form := selectionForm{
		IssuerIDs: f.IssuerIDs, Profiles: f.Profiles, Status: f.Status, Text: f.Text, Serial: hex.EncodeToString(f.Serial.Bytes()),
		Requester: f.Requester, Protocol: f.Protocol, Device: f.Device, NotAfterFrom: f.NotAfterFrom.UTC(), NotAfterTo: f.NotAfterTo.UTC(),
		IssuedFrom: f.IssuedFrom.UTC(), IssuedTo: f.IssuedTo.UTC(), WithoutReserved: f.WithoutReserved,
		GoodFrom: f.GoodFrom.UTC(), GoodTo: f.GoodTo.UTC(),
	}
	if f.Fingerprint != nil {
		form.Fingerprint = f.Fingerprint.String()
	}
	if f.SPKIHash != nil {
		form.SPKIHash = hex.EncodeToString(f.SPKIHash[:])
	}
	return json.Marshal(form)
}

// DecodeSelection reads a filter. A condition that this program does not know, since a later release wrote it, is an error:
// leaving it out would revoke more than was asked for.
func DecodeSelection(b []byte) (CertificateFilter, error) {
	var form selectionForm
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&form); err != nil {
		return CertificateFilter{}, fmt.Errorf("reading a campaign's selection: %w", err)
	}
	f := CertificateFilter{
		IssuerIDs: form.IssuerIDs, Profiles: form.Profiles, Status: form.Status, Text: form.Text, Requester: form.Requester, Protocol: form.Protocol,
		Device: form.Device, NotAfterFrom: form.NotAfterFrom, NotAfterTo: form.NotAfterTo, IssuedFrom: form.IssuedFrom, IssuedTo: form.IssuedTo,
		WithoutReserved: form.WithoutReserved, GoodFrom: form.GoodFrom, GoodTo: form.GoodTo,
	}
	if form.Fingerprint != "" {
		fingerprint, err := pki.ParseFingerprint(form.Fingerprint)
		if err != nil {
			return CertificateFilter{}, fmt.Errorf("reading a campaign's selection: %w", err)
		}
		f.Fingerprint = &fingerprint
	}
	serial, err := hex.DecodeString(form.Serial)
	if err != nil {
		return CertificateFilter{}, fmt.Errorf("reading a campaign's selection: %w", err)
	}
	f.Serial = pki.SerialNumber(serial)
	if form.SPKIHash != "" {
		hash, err := hex.DecodeString(form.SPKIHash)
		if err != nil || len(hash) != len(f.SPKIHash) {
			return CertificateFilter{}, fmt.Errorf("reading a campaign's selection: %q is not the hash of a key", form.SPKIHash)
		}
		f.SPKIHash = (*[32]byte)(hash)
	}
	return f, nil
}

// NotRevoked narrows a filter to certificates that are good or on hold. It returns false when nothing is left.
func (f CertificateFilter) NotRevoked() (CertificateFilter, bool) {
	if len(f.Status) == 0 {
		f.Status = []pki.Status{pki.Good, pki.OnHold}
		return f, true
	}
	f.Status = slices.DeleteFunc(slices.Clone(f.Status), func(s pki.Status) bool { return s == pki.Revoked })
	return f, len(f.Status) > 0
}
