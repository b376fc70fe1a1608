package rest

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/transfer"
)

// Event is an audit event as the API shows it.
type Event struct {
	Seq       int64             `json:"seq" doc:"Place in the chain of records"`
	Change    int64             `json:"change" doc:"The store's change that it belongs to"`
	Time      time.Time         `json:"time"`
	Action    string            `json:"action"`
	Actor     string            `json:"actor"`
	Role      string            `json:"role,omitempty"`
	Source    string            `json:"source,omitempty"`
	RequestID string            `json:"request_id,omitempty"`
	Target    string            `json:"target,omitempty"`
	Detail    map[string]string `json:"detail,omitempty"`
}

type auditInput struct {
	Actor  string    `query:"actor" doc:"As in token:NAME" maxLength:"200"`
	Action string    `query:"action" doc:"Exact, or a group as in certificate." maxLength:"100"`
	Target string    `query:"target" doc:"As in certificate/ID" maxLength:"200"`
	From   time.Time `query:"from" doc:"At this time or later"`
	To     time.Time `query:"to" doc:"Before this time"`
	Limit  int       `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Events on a page"`
	Cursor string    `query:"cursor" doc:"As the page before gave it in next" maxLength:"512"`
}

type auditOutput struct {
	Body struct {
		Events []Event `json:"events"`
		Next   string  `json:"next,omitempty" doc:"Cursor of the next page; absent on the last"`
	}
}

func (a *api) listAudit(ctx context.Context, in *auditInput) (*auditOutput, error) {
	if err := unlimited(principal(ctx)); err != nil {
		return nil, err
	}
	done, err := a.searches.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	f := store.AuditFilter{Actor: in.Actor, Action: in.Action, Target: in.Target, From: in.From, To: in.To}
	events, next, err := a.Store.AuditEvents(ctx, f, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, err
	}
	out := &auditOutput{}
	out.Body.Events, out.Body.Next = []Event{}, next
	for _, e := range events {
		r, err := audit.Parse(e.Bytes)
		if err != nil {
			return nil, err
		}
		out.Body.Events = append(out.Body.Events, Event{
			Seq: e.Seq, Change: e.Change, Time: r.Time, Action: r.Action, Actor: r.Actor, Role: r.Role, Source: r.Source,
			RequestID: r.RequestID, Target: r.Target, Detail: r.Detail,
		})
	}
	return out, nil
}

// unlimited refuses a token that is narrowed to issuers or profiles: the trail tells of all of them.
func unlimited(p pki.Principal) error {
	if len(p.Issuers) > 0 || len(p.Profiles) > 0 {
		return fault.New(fault.Forbidden, "this token is limited to some issuers or profiles, and the audit trail tells of all")
	}
	return nil
}

// Verification is the outcome of a walk over the chain.
type Verification struct {
	Whole   bool   `json:"whole" doc:"Nothing was changed, dropped or moved"`
	Problem string `json:"problem,omitempty" doc:"Where the chain breaks, or which checkpoint it does not pass through"`
	Changes int64  `json:"changes" doc:"Changes walked"`
	Records int64  `json:"records" doc:"Records walked"`
	Head    string `json:"head" doc:"Hash of the chain's end; note it down to compare with later"`
}

type verifyOutput struct{ Body Verification }

type verifyInput struct {
	Checkpoints []string `query:"checkpoint" maxItems:"100" doc:"Heads that the chain must pass through, CHANGE:HEAD, separated by commas: a chain that was cut off or made anew does not"`
}

func (a *api) verifyAudit(ctx context.Context, in *verifyInput) (*verifyOutput, error) {
	if err := unlimited(principal(ctx)); err != nil {
		return nil, err
	}
	checkpoints := make([]transfer.Checkpoint, len(in.Checkpoints))
	for i, text := range in.Checkpoints {
		var err error
		if checkpoints[i], err = transfer.ParseCheckpoint(text); err != nil {
			return nil, fault.New(fault.BadRequest, "%s", err).WithField("checkpoint")
		}
	}
	done, err := a.walks.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	v, err := transfer.VerifyChain(ctx, a.Store, checkpoints...)
	if err != nil {
		return nil, err
	}
	return &verifyOutput{Body: Verification{
		Whole: v.Problem == "", Problem: v.Problem, Changes: v.Changes, Records: v.Records, Head: hex.EncodeToString(v.Head[:]),
	}}, nil
}
