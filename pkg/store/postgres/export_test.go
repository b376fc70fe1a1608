package postgres

import (
	"context"
	"io/fs"
	"time"
)

// The statements whose plans the tests look at.
const (
	SQLStatus              = sqlStatus
	SQLLockCertificates    = sqlLockCertificates
	SQLReadCertificates    = sqlReadCertificates
	SQLCertificates        = sqlCertificates
	SQLCertificateBySerial = `SELECT ` + certificateColumns + `, c.der ` + certificateTables + ` WHERE c.issuer_id = $1 AND c.bucket = $2 AND c.serial = $3`
)

// MigrateFrom is Migrate with migrations of the test's own.
func MigrateFrom(ctx context.Context, dsn string, files fs.FS, lockTimeout time.Duration) (from, to uint, err error) {
	return migrateFrom(ctx, dsn, files, lockTimeout)
}

// Fail is how errors of the driver are classified.
func Fail(err error, doing string) error { return fail(err, doing) }
