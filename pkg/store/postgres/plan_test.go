package postgres_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
)

var partitionName = regexp.MustCompile(`\bcertificate_(\d{4}|imported|never|default)\b`)

// TestPlans looks at how the server finds what the hot paths ask for.
func TestPlans(t *testing.T) {
	dsn := migrated(t)
	s := open(t, dsn)
	issuerID, keyID := setUp(t, s)
	var wg sync.WaitGroup
	issued := make([]store.Issuance, 2000)
	for i := range issued {
		issued[i] = issuance(issuerID, keyID)
		wg.Go(func() {
			if err := s.RecordIssuance(t.Context(), issued[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	serial := issued[1000].Certificate.Serial
	octets := `'\x` + hex.EncodeToString(serial.Bytes()) + `'::bytea`
	tests := map[string]struct{ sql, types, args, want string }{
		"Status":              {postgres.SQLStatus, "bigint, int, bytea", fmt.Sprintf("%d, %d, %s", keyID, serial.Bucket(), octets), "Index Only Scan using certificate_2027_pkey"},
		"CertificateBySerial": {postgres.SQLCertificateBySerial, "bigint, int, bytea", fmt.Sprintf("%d, %d, %s", issuerID, serial.Bucket(), octets), "Index Scan using certificate_2027_pkey"},
		"ChangeStatus":        {postgres.SQLLockCertificates, "bigint[], int[], bytea[], int, int", fmt.Sprintf("ARRAY[%d], ARRAY[%d], ARRAY[%s], %d, %d", issuerID, serial.Bucket(), octets, serial.Bucket(), serial.Bucket()), "Index Scan using certificate_2027_pkey"},
		"ChangeStatus, read":  {postgres.SQLReadCertificates, "bigint[], int[], bytea[], int, int", fmt.Sprintf("ARRAY[%d], ARRAY[%d], ARRAY[%s], %d, %d", issuerID, serial.Bucket(), octets, serial.Bucket(), serial.Bucket()), "Index Scan using certificate_2027_pkey"},
	}
	for _, analyzed := range []string{"", "VACUUM ANALYZE certificate, issuer_key, revocation"} { // a new store has no statistics
		if _, err := conn.Exec(t.Context(), analyzed); err != nil {
			t.Fatal(err)
		}
		for name, test := range tests {
			for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
				name := fmt.Sprintf("%s, %s, %q", name, mode, analyzed)
				const settings = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;"
				run := func(sql string) []string {
					t.Helper()
					results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					var lines []string
					for _, row := range results[len(results)-1].Rows {
						lines = append(lines, string(row[0]))
					}
					return lines
				}
				run("BEGIN; " + settings + "SET LOCAL plan_cache_mode = " + mode + "; PREPARE q (" + test.types + ") AS " + test.sql)
				var plan []string
				for _, line := range run("EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) EXECUTE q (" + test.args + ")") {
					if !strings.Contains(line, "never executed") {
						plan = append(plan, line)
					}
				}
				run("DEALLOCATE q; ROLLBACK")
				text := strings.Join(plan, "\n")
				touched := partitionName.FindAllString(text, -1)
				slices.Sort(touched)
				touched = slices.Compact(touched)
				if !slices.Equal(touched, []string{"certificate_2027"}) || !strings.Contains(text, test.want) || strings.Contains(text, "Seq Scan on certificate") ||
					strings.HasPrefix(name, "ChangeStatus") && strings.Contains(text, "Materialize") {
					t.Errorf("%s touches %v, want certificate_2027 alone by %s:\n%s", name, touched, test.want, text)
				}
			}
		}
	}
}
