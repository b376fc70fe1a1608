package e2e

import (
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// TestRestoredShards restores a backup of a sharded issuer that knows neither of the certificates issued and revoked since,
// nor that the number of shards was changed. By the last complete list, and one list of the other shards, every certificate
// is judged rightly again, by the list that it names and by the bundle.
func TestRestoredShards(t *testing.T) {
	Need(t, "openssl", "certtool", "/usr/bin/python3")
	for _, kind := range []string{"SQLite", "Postgres"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var o Options
			if kind == "Postgres" {
				o.Database = pgtest.DSN(t)
			}
			s := Start(t, o)
			issuer, err := s.Client.Issuer(t.Context(), "issuing")
			if err != nil {
				t.Fatal(err)
			}
			f := &forms{T: t, s: s, h: chainOf(t, s), keyID: issuer.KeyID, bad: map[string]bool{}}
			f.settle(`{"crl":{"form":"sharded","shards":2,"delta":{}}}`)
			f.issue("before")

			file := filepath.Join(t.TempDir(), "backup.db")
			if kind == "SQLite" {
				s.MustCLI("store", "backup", file)
			} else {
				s.Stop()
				o.Database = pgtest.Copy(t, o.Database)
				s.Again()
			}
			f.change(f.all[0], "revoke")
			f.issue("since")
			f.settle(`{"crl":{"form":"sharded","shards":3}}`)
			f.issue("other")

			seen := map[string]*big.Int{}
			for _, c := range f.all {
				seen[f.list(c)] = readCRL(t, f.list(c), f.h.issuing).Number
			}
			lists := []string{s.HTTP + "/crl/" + f.keyID + ".crl", f.list(f.all[len(f.all)-1]), f.h.issuing.CRLDistributionPoints[0]}
			args := []string{"store", "restore-finish"}
			for i, address := range lists {
				name := filepath.Join(t.TempDir(), fmt.Sprintf("%d.crl", i))
				writeFile(t, name, fetch(t, address))
				args = append(args, "--crl", name)
			}
			s.Stop()
			if kind == "SQLite" {
				for _, end := range []string{"", "-wal", "-shm"} {
					if err := os.Remove(filepath.Join(s.Data, "certwright.db"+end)); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Fatal(err)
					}
				}
				writeFile(t, filepath.Join(s.Data, "certwright.db"), readFile(t, file))
			} else {
				s.Set(func(now *Options) { now.Database = o.Database })
			}
			s.MustCLI(args...)
			s.Again()

			for _, c := range f.all {
				eventually(t, 20*time.Second, "a new list of "+c.Subject, func() error {
					if at := get(t, http.MethodGet, f.list(c), nil); at.status != http.StatusOK {
						return fmt.Errorf("status %d", at.status)
					}
					list := readCRL(t, f.list(c), f.h.issuing)
					if list.Number.Cmp(seen[f.list(c)]) <= 0 {
						return fmt.Errorf("number %d, and %d was seen before", list.Number, seen[f.list(c)])
					}
					if (listed(list, c) != nil) != f.bad[c.ID] {
						return fmt.Errorf("listed: %v, want %v", !f.bad[c.ID], f.bad[c.ID])
					}
					return nil
				})
			}
			f.judge()
			s.Stop()
			checkStore(t, s)
		})
	}
}
