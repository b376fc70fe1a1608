package postgres_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/certwright/certwright/pkg/pki"
)

// BenchmarkRevokeAmong revokes one certificate after the other of an issuer key that has many revoked ones already, over
// 64 shards: what is revoked must not make revoking dearer. ScopeOf reads the entries of one shard among them.
func BenchmarkRevokeAmong(b *testing.B) {
	for _, revoked := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint(revoked), func(b *testing.B) {
			dsn := migrated(b)
			s := open(b, dsn)
			issuerID, keyID := setUp(b, s)
			conn, err := pgx.Connect(b.Context(), dsn)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close(b.Context())
			_, err = conn.Exec(b.Context(), `
				INSERT INTO revocation (issuer_key_id, serial, issuer_id, bucket, status, reason, revoked_at, not_after, change, crl_scope)
				SELECT $1, decode('41014e', 'hex') || substring(sha256(int8send(n)) FROM 1 FOR 13), $2, 334, 2, 1, now(), now() + interval '1 year', 1, 's64/' || n % 64
				FROM generate_series(1, $3::bigint) AS n`, keyID, issuerID, revoked)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := conn.Exec(b.Context(), `VACUUM ANALYZE revocation`); err != nil {
				b.Fatal(err)
			}
			b.Run("Revoke", func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					i := issuance(issuerID, keyID)
					i.Certificate.CRLScope, i.Certificate.CRLShard = pki.ShardScope("s64", 3), 3
					if err := s.RecordIssuance(b.Context(), i); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					if _, err := s.ChangeStatus(b.Context(), revoke(i.Certificate)); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("ScopeOf", func(b *testing.B) {
				for b.Loop() {
					_, entries, err := s.Revocations(b.Context(), keyID, pki.ShardScope("s64", 17))
					if err != nil {
						b.Fatal(err)
					}
					n := 0
					for _, err := range entries {
						if err != nil {
							b.Fatal(err)
						}
						n++
					}
					if n != revoked/64 && n != revoked/64+1 {
						b.Fatalf("%d entries", n)
					}
				}
			})
		})
	}
}
