package store

import (
	"context"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
)

// AllPoints implements Store.
func (m *measured) AllPoints(ctx context.Context) (_ []pki.PointVersion, err error) {
	defer m.done("AllPoints", time.Now(), &err)
	return m.Store.AllPoints(ctx)
}

// PointHistory implements Store.
func (m *measured) PointHistory(ctx context.Context, name string) (_ []pki.PointVersion, err error) {
	defer m.done("PointHistory", time.Now(), &err)
	return m.Store.PointHistory(ctx, name)
}

// PutPoint implements Store.
func (m *measured) PutPoint(ctx context.Context, c PointChange) (err error) {
	defer m.done("PutPoint", time.Now(), &err)
	return m.Store.PutPoint(ctx, c)
}

// CreateChallenges implements Store.
func (m *measured) CreateChallenges(ctx context.Context, cs []pki.Challenge, record audit.Record) (err error) {
	defer m.done("CreateChallenges", time.Now(), &err)
	return m.Store.CreateChallenges(ctx, cs, record)
}

// Challenge implements Store.
func (m *measured) Challenge(ctx context.Context, id string) (_ pki.Challenge, err error) {
	defer m.done("Challenge", time.Now(), &err)
	return m.Store.Challenge(ctx, id)
}

// ListChallenges implements Store.
func (m *measured) ListChallenges(ctx context.Context, f ChallengeFilter, p Page) (_ []pki.Challenge, _ string, err error) {
	defer m.done("ListChallenges", time.Now(), &err)
	return m.Store.ListChallenges(ctx, f, p)
}

// RevokeChallenge implements Store.
func (m *measured) RevokeChallenge(ctx context.Context, id string, at time.Time, record audit.Record) (err error) {
	defer m.done("RevokeChallenge", time.Now(), &err)
	return m.Store.RevokeChallenge(ctx, id, at, record)
}

// RevokeChallenges implements Store.
func (m *measured) RevokeChallenges(ctx context.Context, f ChallengeFilter, at time.Time, record audit.Record) (_ int, err error) {
	defer m.done("RevokeChallenges", time.Now(), &err)
	return m.Store.RevokeChallenges(ctx, f, at, record)
}

// FailChallenge implements Store.
func (m *measured) FailChallenge(ctx context.Context, id string, record audit.Record) (err error) {
	defer m.done("FailChallenge", time.Now(), &err)
	return m.Store.FailChallenge(ctx, id, record)
}

// Enrollment implements Store.
func (m *measured) Enrollment(ctx context.Context, point, transactionID string, spkiHash [32]byte) (_ pki.Enrollment, err error) {
	defer m.done("Enrollment", time.Now(), &err)
	return m.Store.Enrollment(ctx, point, transactionID, spkiHash)
}

// EnrollmentBySigner implements Store.
func (m *measured) EnrollmentBySigner(ctx context.Context, point, transactionID string, signerHash [32]byte) (_ pki.Enrollment, err error) {
	defer m.done("EnrollmentBySigner", time.Now(), &err)
	return m.Store.EnrollmentBySigner(ctx, point, transactionID, signerHash)
}

// Successor implements Store.
func (m *measured) Successor(ctx context.Context, f pki.Fingerprint) (_ pki.Certificate, err error) {
	defer m.done("Successor", time.Now(), &err)
	return m.Store.Successor(ctx, f)
}

// EnrollmentByID implements Store.
func (m *measured) EnrollmentByID(ctx context.Context, id string) (_ pki.Enrollment, err error) {
	defer m.done("EnrollmentByID", time.Now(), &err)
	return m.Store.EnrollmentByID(ctx, id)
}

// ListEnrollments implements Store.
func (m *measured) ListEnrollments(ctx context.Context, f EnrollmentFilter, p Page) (_ []pki.Enrollment, _ string, err error) {
	defer m.done("ListEnrollments", time.Now(), &err)
	return m.Store.ListEnrollments(ctx, f, p)
}

// PutEnrollment implements Store.
func (m *measured) PutEnrollment(ctx context.Context, c EnrollmentChange) (err error) {
	defer m.done("PutEnrollment", time.Now(), &err)
	return m.Store.PutEnrollment(ctx, c)
}

// PruneEnrollments implements Store.
func (m *measured) PruneEnrollments(ctx context.Context, before time.Time, limit int) (_ int, err error) {
	defer m.done("PruneEnrollments", time.Now(), &err)
	return m.Store.PruneEnrollments(ctx, before, limit)
}

// AllRACertificates implements Store.
func (m *measured) AllRACertificates(ctx context.Context) (_ []pki.RACertificate, err error) {
	defer m.done("AllRACertificates", time.Now(), &err)
	return m.Store.AllRACertificates(ctx)
}

// PutRACertificate implements Store.
func (m *measured) PutRACertificate(ctx context.Context, c RAChange) (err error) {
	defer m.done("PutRACertificate", time.Now(), &err)
	return m.Store.PutRACertificate(ctx, c)
}

// Secret implements Store.
func (m *measured) Secret(ctx context.Context, name string) (_ []byte, err error) {
	defer m.done("Secret", time.Now(), &err)
	return m.Store.Secret(ctx, name)
}

// AllSecrets implements Store.
func (m *measured) AllSecrets(ctx context.Context) (_ map[string][]byte, err error) {
	defer m.done("AllSecrets", time.Now(), &err)
	return m.Store.AllSecrets(ctx)
}
