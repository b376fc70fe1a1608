package store

import (
	"context"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
)

// IssuerSettings keeps what administrators have settled for issuers, and the addresses of CRLs that certificates carry.
// AllIssuers returns the newest version of the settings, and every address.
type IssuerSettings interface {
	// PutIssuerSettings writes a new version of an issuer's settings, and records the addresses that certificates will
	// carry by them, as RecordCRLAddress does. Its number must be one more than the newest, or 1 for the first; else
	// ErrStale. NotFound when there is no such issuer, or no such issuer key.
	PutIssuerSettings(ctx context.Context, v pki.SettingsVersion, addresses []pki.CRLAddress, record audit.Record) error
	// IssuerSettingsHistory returns every version of an issuer's settings, newest first; none for an issuer that has only
	// what the process says.
	IssuerSettingsHistory(ctx context.Context, issuerID int64) ([]pki.SettingsVersion, error)
	// RecordCRLAddress records an address, which must be done before a certificate that carries it is released. One that
	// is there keeps its RecordedAt and ListedAt, and its Until becomes the later of both; when that is no change nothing
	// is written, the record neither. One whose Until lies before the new RecordedAt has lapsed: no CRLs need have been made
	// for it since, and its ListedAt becomes the new one. NotFound when there is no such issuer key.
	RecordCRLAddress(ctx context.Context, a pki.CRLAddress, record audit.Record) error
	// ListCRLAddress notes that every CRL of the set that is published names the address, so that certificates may carry
	// it. It is a change of the configuration without a record, as CRLs are. NotFound when the address has not been
	// recorded; one that is listed stays as it is, and nothing is written.
	ListCRLAddress(ctx context.Context, issuerKeyID int64, set, url string, at time.Time) error
}

// Scopes keeps one copy of each scope's name, for a stream of a million entries of a few scopes. It is for one goroutine.
type Scopes map[string]string

// Of returns the name that the octets spell.
func (s Scopes) Of(name []byte) string {
	if known, ok := s[string(name)]; ok {
		return known
	}
	s[string(name)] = string(name)
	return s[string(name)]
}
