package rest

import (
	"context"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// CRLState tells how the publication of one CRL stands.
type CRLState struct {
	Issuer     string     `json:"issuer"`
	KeyID      string     `json:"key_id" doc:"Of the issuer key, as in the CRL's address"`
	Scope      string     `json:"scope" doc:"full speaks of every certificate; others of CA certificates (ca), of a shard (SET/SHARD), or of what changed since a base (SCOPE/delta)"`
	Status     string     `json:"status" enum:"none,current,old,expired" doc:"old: more than half of its life has passed; none: there is none yet"`
	Number     int64      `json:"number,omitempty" doc:"cRLNumber"`
	Entries    int        `json:"entries"`
	Size       int        `json:"size" doc:"In octets, DER"`
	ThisUpdate *time.Time `json:"this_update,omitempty"`
	NextUpdate *time.Time `json:"next_update,omitempty"`
	CreatedAt  *time.Time `json:"created_at,omitempty"`
	AgeSeconds int64      `json:"age_seconds" doc:"Since it was made"`
	Pending    bool       `json:"pending" doc:"A change of a certificate's status is not on it yet"`
	Error      string     `json:"error,omitempty" doc:"Why this replica could not make the next one; the log has the causes"`
	URL        string     `json:"url" doc:"Where it is published, DER"`
	PEMURL     string     `json:"pem_url"`
}

type crlsInput struct {
	Issuer string `query:"issuer" doc:"Those of this issuer only" maxLength:"100"`
}

type crlsOutput struct {
	Body struct {
		MadeHere bool       `json:"made_here" doc:"The replica that answers is the one that makes the CRLs"`
		MadeBy   string     `json:"made_by,omitempty" doc:"The replica that makes the CRLs: its machine's name and a random part, as in its log"`
		CRLs     []CRLState `json:"crls"`
	}
}

// listCRLs tells of what this replica serves.
func (a *api) listCRLs(_ context.Context, in *crlsInput) (*crlsOutput, error) {
	if in.Issuer != "" {
		if _, err := a.Issuers.Current().Issuer(in.Issuer); err != nil {
			return nil, err
		}
	}
	out := &crlsOutput{}
	m := a.CRLs.Metrics()
	out.Body.MadeHere, out.Body.MadeBy, out.Body.CRLs = m.Leader, m.Maker, []CRLState{}
	now := a.Now()
	for _, s := range a.CRLs.State() {
		if in.Issuer != "" && s.Issuer != in.Issuer {
			continue
		}
		path := a.Server.PublicURL + pki.CRLPath(s.KeyID, s.Scope)
		c := CRLState{
			Issuer: s.Issuer, KeyID: s.KeyID, Scope: s.Scope, Status: "none", Number: s.Number, Entries: s.Entries, Size: s.Size,
			Pending: s.Pending, URL: path, PEMURL: strings.TrimSuffix(path, ".crl") + ".pem",
		}
		if s.Number != 0 {
			c.ThisUpdate, c.NextUpdate, c.CreatedAt, c.AgeSeconds = &s.ThisUpdate, &s.NextUpdate, &s.CreatedAt, int64(s.Age/time.Second)
			switch {
			case s.Expired(now):
				c.Status = "expired"
			case now.After(s.ThisUpdate.Add(s.NextUpdate.Sub(s.ThisUpdate) / 2)):
				c.Status = "old"
			default:
				c.Status = "current"
			}
		}
		if s.Err != nil {
			c.Error = fault.Public(s.Err).Detail
		}
		out.Body.CRLs = append(out.Body.CRLs, c)
	}
	return out, nil
}
