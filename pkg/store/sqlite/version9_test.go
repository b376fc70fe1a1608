package sqlite_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/certwright/certwright/migrations"
	"github.com/certwright/certwright/pkg/store/sqlite"
	"github.com/certwright/certwright/pkg/store/storetest"
)

// Migration 10 registers the devices of a database that was in use.
func TestMigrateFromVersion9(t *testing.T) {
	files := fstest.MapFS{}
	names, err := fs.Glob(migrations.FS, "sqlite/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		var n uint
		if _, err := fmt.Sscanf(strings.TrimPrefix(name, "sqlite/"), "%d", &n); err != nil {
			t.Fatal(err)
		}
		if n > 9 {
			continue
		}
		b, err := migrations.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: b}
	}
	path := filepath.Join(t.TempDir(), "certwright.db")
	if _, to, err := sqlite.MigrateFS(t.Context(), path, files); err != nil || to != 9 {
		t.Fatalf("Migrate = %d, %v", to, err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	moment := func(at time.Time) any {
		if at.IsZero() {
			return nil
		}
		return at.UnixMicro()
	}
	before := storetest.Version9()
	for _, c := range before.Certificates {
		exec(`
			INSERT INTO certificate (issuer_id, issuer_key_id, not_before, not_after, issued_at, bucket, profile_version, crl_shard, serial, fingerprint, spki_hash,
				subject, sans, profile, requester, protocol, device, source, transaction_id, crl_scope, search_text)
			VALUES (?, ?, ?, ?, ?, ?, 1, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, '')`,
			c.IssuerID, c.IssuerKeyID, moment(c.NotBefore), moment(c.NotAfter), moment(c.IssuedAt), c.Serial.Bucket(), c.Serial.Bytes(), c.Fingerprint[:], c.SPKIHash[:],
			c.Subject, text(c.SANs), c.Profile, c.Requester, c.Protocol, c.Device, c.Source, c.CRLScope)
	}
	for _, c := range before.Challenges {
		exec(`
			INSERT INTO challenge (id, hash, point, profile, subject, sans, device, note, created_at, created_by, expires_at, failures)
			VALUES (?, ?, ?, '', '', '[]', ?, '', ?, ?, ?, 0)`, c.ID, c.Hash[:], c.Point, c.Device, moment(c.CreatedAt), c.CreatedBy, moment(c.ExpiresAt))
	}
	for _, d := range before.Devices {
		exec(`
			INSERT INTO device (id, version, status, group_name, owner, labels, subject, sans, note, reason, created_at, created_by, changed_at, changed_by,
				first_seen_at, last_seen_at, last_source, last_point, protocol, failures, renewal_failures, failed_at, failure, returns, revoke_reason, revoke_until, search_text)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, lower(?4))`,
			d.ID, d.Version, int(d.Status), d.Group, d.Owner, text(d.Labels), d.Subject, text(append([]string{}, d.SANs...)), d.Note, d.Reason, moment(d.CreatedAt), d.CreatedBy, moment(d.ChangedAt), d.ChangedBy,
			moment(d.FirstSeenAt), moment(d.LastSeenAt), d.LastSource, d.LastPoint, text(d.Protocol), d.Failures, d.RenewalFailures, moment(d.FailedAt), d.Failure, d.Returns,
			int(d.RevokeReason), moment(d.RevokeUntil))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if from, _, err := sqlite.Migrate(t.Context(), path); err != nil || from != 9 {
		t.Fatalf("Migrate = from %d, %v", from, err)
	}
	before.WantRegistered(t, open(t, path))
}
