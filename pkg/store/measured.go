package store

import (
	"context"
	"iter"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
)

// Observe is told of each verb that ended: its name as in Store, how long it took, and its error. A stream has ended when
// it was ranged over. It is called concurrently and must be quick.
type Observe func(verb string, took time.Duration, err error)

// Measured returns a store that does what s does and tells observe of it. A verb that it does not know, because the
// contract has grown, works and is not told of; a test of this package fails then.
func Measured(s Store, observe Observe) Store { return &measured{Store: s, observe: observe} }

type measured struct {
	Store
	observe Observe
}

// done is deferred by each verb.
func (m *measured) done(verb string, began time.Time, err *error) {
	m.observe(verb, time.Since(began), *err)
}

// Revocations implements Store.
func (m *measured) Revocations(ctx context.Context, issuerKeyID int64, scope string) (change int64, entries iter.Seq2[RevokedEntry, error], err error) {
	began := time.Now()
	change, entries, err = m.Store.Revocations(ctx, issuerKeyID, scope)
	if err != nil {
		m.done("Revocations", began, &err)
		return change, entries, err
	}
	return change, stream(m, "Revocations", began, entries), nil
}

// AuditChain implements Store.
func (m *measured) AuditChain(ctx context.Context) iter.Seq2[SealedBatch, error] {
	return stream(m, "AuditChain", time.Now(), m.Store.AuditChain(ctx))
}

// stream tells of a verb when its sequence ends.
func stream[T any](m *measured, verb string, began time.Time, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last error
		defer m.done(verb, began, &last)
		for v, err := range seq {
			last = err
			if !yield(v, err) {
				return
			}
		}
	}
}

// RecordIssuance implements Store.
func (m *measured) RecordIssuance(ctx context.Context, i Issuance) (err error) {
	defer m.done("RecordIssuance", time.Now(), &err)
	return m.Store.RecordIssuance(ctx, i)
}

// Certificate implements Store.
func (m *measured) Certificate(ctx context.Context, f pki.Fingerprint) (_ pki.Certificate, err error) {
	defer m.done("Certificate", time.Now(), &err)
	return m.Store.Certificate(ctx, f)
}

// CertificateBySerial implements Store.
func (m *measured) CertificateBySerial(ctx context.Context, issuerID int64, s pki.SerialNumber) (_ pki.Certificate, err error) {
	defer m.done("CertificateBySerial", time.Now(), &err)
	return m.Store.CertificateBySerial(ctx, issuerID, s)
}

// ListCertificates implements Store.
func (m *measured) ListCertificates(ctx context.Context, f CertificateFilter, p Page) (_ []pki.Certificate, _ string, err error) {
	defer m.done("ListCertificates", time.Now(), &err)
	return m.Store.ListCertificates(ctx, f, p)
}

// CountCertificates implements Store.
func (m *measured) CountCertificates(ctx context.Context, f CertificateFilter, limit int) (_ int, err error) {
	defer m.done("CountCertificates", time.Now(), &err)
	return m.Store.CountCertificates(ctx, f, limit)
}

// Idempotency implements Store.
func (m *measured) Idempotency(ctx context.Context, id [32]byte, at time.Time) (_ Idempotency, err error) {
	defer m.done("Idempotency", time.Now(), &err)
	return m.Store.Idempotency(ctx, id, at)
}

// PruneIdempotency implements Store.
func (m *measured) PruneIdempotency(ctx context.Context, at time.Time, limit int) (_ int, err error) {
	defer m.done("PruneIdempotency", time.Now(), &err)
	return m.Store.PruneIdempotency(ctx, at, limit)
}

// ChangeStatus implements Store.
func (m *measured) ChangeStatus(ctx context.Context, c StatusChange) (_ pki.Certificate, err error) {
	defer m.done("ChangeStatus", time.Now(), &err)
	return m.Store.ChangeStatus(ctx, c)
}

// Status implements Store.
func (m *measured) Status(ctx context.Context, issuerKeyID int64, s pki.SerialNumber) (_ *pki.Revocation, err error) {
	defer m.done("Status", time.Now(), &err)
	return m.Store.Status(ctx, issuerKeyID, s)
}

// StatusEvents implements Store.
func (m *measured) StatusEvents(ctx context.Context, after int64, limit int) (_ []StatusEvent, err error) {
	defer m.done("StatusEvents", time.Now(), &err)
	return m.Store.StatusEvents(ctx, after, limit)
}

// CreateCampaign implements Store.
func (m *measured) CreateCampaign(ctx context.Context, c Campaign, records ...audit.Record) (err error) {
	defer m.done("CreateCampaign", time.Now(), &err)
	return m.Store.CreateCampaign(ctx, c, records...)
}

// Campaign implements Store.
func (m *measured) Campaign(ctx context.Context, id string) (_ Campaign, err error) {
	defer m.done("Campaign", time.Now(), &err)
	return m.Store.Campaign(ctx, id)
}

// ListCampaigns implements Store.
func (m *measured) ListCampaigns(ctx context.Context, limit int) (_ []Campaign, err error) {
	defer m.done("ListCampaigns", time.Now(), &err)
	return m.Store.ListCampaigns(ctx, limit)
}

// RunningCampaigns implements Store.
func (m *measured) RunningCampaigns(ctx context.Context) (_ []Campaign, err error) {
	defer m.done("RunningCampaigns", time.Now(), &err)
	return m.Store.RunningCampaigns(ctx)
}

// SetCampaignState implements Store.
func (m *measured) SetCampaignState(ctx context.Context, id string, to CampaignState, at time.Time, record audit.Record) (_ Campaign, err error) {
	defer m.done("SetCampaignState", time.Now(), &err)
	return m.Store.SetCampaignState(ctx, id, to, at, record)
}

// NextCertificates implements Store.
func (m *measured) NextCertificates(ctx context.Context, f CertificateFilter, after CertificatePosition, limit int) (_ []pki.Certificate, err error) {
	defer m.done("NextCertificates", time.Now(), &err)
	return m.Store.NextCertificates(ctx, f, after, limit)
}

// StepCampaign implements Store.
func (m *measured) StepCampaign(ctx context.Context, s CampaignStep) (_ CampaignOutcome, err error) {
	defer m.done("StepCampaign", time.Now(), &err)
	return m.Store.StepCampaign(ctx, s)
}

// Settle implements Store.
func (m *measured) Settle(ctx context.Context) (err error) {
	defer m.done("Settle", time.Now(), &err)
	return m.Store.Settle(ctx)
}

// UnblockKey implements Store.
func (m *measured) UnblockKey(ctx context.Context, spkiHash [32]byte, record audit.Record) (err error) {
	defer m.done("UnblockKey", time.Now(), &err)
	return m.Store.UnblockKey(ctx, spkiHash, record)
}

// NextCRLNumber implements Store.
func (m *measured) NextCRLNumber(ctx context.Context, issuerKeyID int64, scope string, unixSeconds int64) (_ int64, err error) {
	defer m.done("NextCRLNumber", time.Now(), &err)
	return m.Store.NextCRLNumber(ctx, issuerKeyID, scope, unixSeconds)
}

// RecordCRL implements Store.
func (m *measured) RecordCRL(ctx context.Context, under *Lease, cs ...pki.CRL) (err error) {
	defer m.done("RecordCRL", time.Now(), &err)
	return m.Store.RecordCRL(ctx, under, cs...)
}

// DropCRLs implements Store.
func (m *measured) DropCRLs(ctx context.Context, under *Lease, issuerKeyID int64, scopes []string, at time.Time) (_ []string, err error) {
	defer m.done("DropCRLs", time.Now(), &err)
	return m.Store.DropCRLs(ctx, under, issuerKeyID, scopes, at)
}

// CRLNumbers implements Store.
func (m *measured) CRLNumbers(ctx context.Context) (_ map[int64]map[string]int64, err error) {
	defer m.done("CRLNumbers", time.Now(), &err)
	return m.Store.CRLNumbers(ctx)
}

// BaseCRL implements Store.
func (m *measured) BaseCRL(ctx context.Context, issuerKeyID int64, scope string) (_ pki.CRL, err error) {
	defer m.done("BaseCRL", time.Now(), &err)
	return m.Store.BaseCRL(ctx, issuerKeyID, scope)
}

// LatestCRL implements Store.
func (m *measured) LatestCRL(ctx context.Context, issuerKeyID int64, scope string, known func([32]byte) []byte) (_ pki.CRL, err error) {
	defer m.done("LatestCRL", time.Now(), &err)
	return m.Store.LatestCRL(ctx, issuerKeyID, scope, known)
}

// LatestScheduledCRL implements Store.
func (m *measured) LatestScheduledCRL(ctx context.Context, issuerKeyID int64, scope string) (_ pki.CRL, err error) {
	defer m.done("LatestScheduledCRL", time.Now(), &err)
	return m.Store.LatestScheduledCRL(ctx, issuerKeyID, scope)
}

// AllIssuers implements Store.
func (m *measured) AllIssuers(ctx context.Context) (_ IssuerSet, err error) {
	defer m.done("AllIssuers", time.Now(), &err)
	return m.Store.AllIssuers(ctx)
}

// KEKInfo implements Store.
func (m *measured) KEKInfo(ctx context.Context) (_ []byte, err error) {
	defer m.done("KEKInfo", time.Now(), &err)
	return m.Store.KEKInfo(ctx)
}

// ReplaceSealedKeys implements Store.
func (m *measured) ReplaceSealedKeys(ctx context.Context, oldKEKInfo, newKEKInfo []byte, sealed Sealed, record audit.Record) (err error) {
	defer m.done("ReplaceSealedKeys", time.Now(), &err)
	return m.Store.ReplaceSealedKeys(ctx, oldKEKInfo, newKEKInfo, sealed, record)
}

// BlockedKeys implements Store.
func (m *measured) BlockedKeys(ctx context.Context) (_ map[[32]byte]BlockedKey, err error) {
	defer m.done("BlockedKeys", time.Now(), &err)
	return m.Store.BlockedKeys(ctx)
}

// AllProfiles implements Store.
func (m *measured) AllProfiles(ctx context.Context) (_ []pki.ProfileVersion, err error) {
	defer m.done("AllProfiles", time.Now(), &err)
	return m.Store.AllProfiles(ctx)
}

// PutProfile implements Store.
func (m *measured) PutProfile(ctx context.Context, p pki.ProfileVersion, record audit.Record) (err error) {
	defer m.done("PutProfile", time.Now(), &err)
	return m.Store.PutProfile(ctx, p, record)
}

// ProfileHistory implements Store.
func (m *measured) ProfileHistory(ctx context.Context, name string) (_ []pki.ProfileVersion, err error) {
	defer m.done("ProfileHistory", time.Now(), &err)
	return m.Store.ProfileHistory(ctx, name)
}

// AllTokens implements Store.
func (m *measured) AllTokens(ctx context.Context) (_ []pki.Token, err error) {
	defer m.done("AllTokens", time.Now(), &err)
	return m.Store.AllTokens(ctx)
}

// CreateToken implements Store.
func (m *measured) CreateToken(ctx context.Context, t pki.Token, record audit.Record) (err error) {
	defer m.done("CreateToken", time.Now(), &err)
	return m.Store.CreateToken(ctx, t, record)
}

// RevokeToken implements Store.
func (m *measured) RevokeToken(ctx context.Context, id string, at time.Time, record audit.Record) (err error) {
	defer m.done("RevokeToken", time.Now(), &err)
	return m.Store.RevokeToken(ctx, id, at, record)
}

// RecordAudit implements Store.
func (m *measured) RecordAudit(ctx context.Context, records ...audit.Record) (err error) {
	defer m.done("RecordAudit", time.Now(), &err)
	return m.Store.RecordAudit(ctx, records...)
}

// AuditEvents implements Store.
func (m *measured) AuditEvents(ctx context.Context, f AuditFilter, p Page) (_ []audit.Event, _ string, err error) {
	defer m.done("AuditEvents", time.Now(), &err)
	return m.Store.AuditEvents(ctx, f, p)
}

// AcquireLease implements Store.
func (m *measured) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (_ Lease, err error) {
	defer m.done("AcquireLease", time.Now(), &err)
	return m.Store.AcquireLease(ctx, name, holder, ttl)
}

// ReleaseLease implements Store.
func (m *measured) ReleaseLease(ctx context.Context, name, holder string) (err error) {
	defer m.done("ReleaseLease", time.Now(), &err)
	return m.Store.ReleaseLease(ctx, name, holder)
}

// Head implements Store.
func (m *measured) Head(ctx context.Context) (_ Head, err error) {
	defer m.done("Head", time.Now(), &err)
	return m.Store.Head(ctx)
}

// Bootstrap implements Store.
func (m *measured) Bootstrap(ctx context.Context, b Bootstrap) (err error) {
	defer m.done("Bootstrap", time.Now(), &err)
	return m.Store.Bootstrap(ctx, b)
}

// Check implements Store.
func (m *measured) Check(ctx context.Context) (_ []Finding, err error) {
	defer m.done("Check", time.Now(), &err)
	return m.Store.Check(ctx)
}

// PutIssuerSettings implements Store.
func (m *measured) PutIssuerSettings(ctx context.Context, v pki.SettingsVersion, addresses []pki.CRLAddress, record audit.Record) (err error) {
	defer m.done("PutIssuerSettings", time.Now(), &err)
	return m.Store.PutIssuerSettings(ctx, v, addresses, record)
}

// IssuerSettingsHistory implements Store.
func (m *measured) IssuerSettingsHistory(ctx context.Context, issuerID int64) (_ []pki.SettingsVersion, err error) {
	defer m.done("IssuerSettingsHistory", time.Now(), &err)
	return m.Store.IssuerSettingsHistory(ctx, issuerID)
}

// RecordCRLAddress implements Store.
func (m *measured) RecordCRLAddress(ctx context.Context, a pki.CRLAddress, record audit.Record) (err error) {
	defer m.done("RecordCRLAddress", time.Now(), &err)
	return m.Store.RecordCRLAddress(ctx, a, record)
}

// ListCRLAddress implements Store.
func (m *measured) ListCRLAddress(ctx context.Context, issuerKeyID int64, set, url string, at time.Time) (err error) {
	defer m.done("ListCRLAddress", time.Now(), &err)
	return m.Store.ListCRLAddress(ctx, issuerKeyID, set, url, at)
}

// NoteVisible implements Store.
func (m *measured) NoteVisible(ctx context.Context, all []Visible) (err error) {
	defer m.done("NoteVisible", time.Now(), &err)
	return m.Store.NoteVisible(ctx, all)
}
