package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/sqlite"
	"github.com/certwright/certwright/pkg/transfer"
)

// BackupStore writes the embedded store into a new file, while a server runs or not. progress may be nil.
func BackupStore(ctx context.Context, cfg config.Config, path string, progress func(done, total int)) error {
	if cfg.Database != "" {
		return fault.New(fault.Conflict, "this store is on Postgres, which has its own tools for backups").
			WithHint("pg_dump --format=custom --file=FILE DATABASE, or continuous archiving; docs/operations.md has the commands")
	}
	if err := storeThere(&cfg); err != nil {
		return err
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(cfg.Data, storeFile), ReadOnly: true})
	if err != nil {
		return err
	}
	return errors.Join(s.Backup(ctx, path, progress), s.Close())
}

// RestoreOptions say what FinishRestore works with.
type RestoreOptions struct {
	CRLs       []string // files, or http and https addresses, of the last published CRLs
	Checkpoint *transfer.Checkpoint
	// RevokeTokens ends every token in force, after a new administrator's was written to TokenFile.
	RevokeTokens bool
	TokenFile    string
}

// Restored is what FinishRestore did.
type Restored struct {
	transfer.Restored
	Tokens int // revoked
}

// How much is read of a CRL, and how long it may take: one of a million entries has 40 MB.
const (
	crlLimit = 512 << 20
	crlWait  = 5 * time.Minute
)

// FinishRestore brings back what the restored store of the settings has forgotten; see transfer.FinishRestore. No server
// may have the store.
func FinishRestore(ctx context.Context, cfg config.Config, o RestoreOptions) (out Restored, err error) {
	if err := storeThere(&cfg); err != nil {
		return out, err
	}
	if o.RevokeTokens {
		if _, err := os.Lstat(o.TokenFile); !errors.Is(err, fs.ErrNotExist) {
			return out, fault.New(fault.Conflict, "the token's file %s exists already", o.TokenFile).WithHint("nothing was changed; name a file that does not exist")
		}
	}
	var files []transfer.CRLFile
	for _, name := range o.CRLs {
		data, err := readCRL(ctx, name)
		if err != nil {
			return out, fault.Wrap(fault.BadRequest, err, "the CRL %s cannot be had: %v", name, err).
				WithHint("nothing was changed; caches and relying servers may have it, or the log of a proxy says where from")
		}
		files = append(files, transfer.CRLFile{Name: name, Data: data})
	}
	s, err := openStore(ctx, &cfg, nil, 0)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if out.Restored, err = transfer.FinishRestore(ctx, transfer.RestoreConfig{Store: s, CRLs: files, Checkpoint: o.Checkpoint, Now: nowUTC}); err != nil {
		return out, err
	}
	if !o.RevokeTokens {
		return out, nil
	}
	token, err := rescue(ctx, s, "", defaultRescue, o.TokenFile)
	if err != nil {
		return out, err
	}
	out.Tokens, err = transfer.RevokeTokens(ctx, s, token.ID, nowUTC())
	return out, err
}

func readCRL(ctx context.Context, name string) ([]byte, error) {
	var r io.Reader
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		ctx, cancel := context.WithTimeout(ctx, crlWait)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, name, nil)
		if err != nil {
			return nil, err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the server answers %s", answer.Status)
		}
		r = answer.Body
	} else {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, crlLimit+1))
	if err == nil && len(data) > crlLimit {
		err = fmt.Errorf("it has more than %d MiB", crlLimit>>20)
	}
	return data, err
}

// defaultRescue is how long a token made on the host lives: long enough to make lasting ones.
const defaultRescue = 24 * time.Hour

// RescueAdmin makes an administrator's token on the host, for when all others are lost, and writes its text to a new file
// of mode 0600. An empty name is chosen; life 0 means a day. Replicas that run learn of it within a second.
func RescueAdmin(ctx context.Context, cfg config.Config, name string, life time.Duration, path string) (token pki.Token, err error) {
	if err := storeThere(&cfg); err != nil {
		return pki.Token{}, err
	}
	s, err := openStore(ctx, &cfg, nil, 0)
	if err != nil {
		return pki.Token{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if life == 0 {
		life = defaultRescue
	}
	return rescue(ctx, s, name, life, path)
}

// rescue writes the file first: a token that nobody has is worse than a file that opens nothing, which is removed again.
func rescue(ctx context.Context, s store.Store, name string, life time.Duration, path string) (pki.Token, error) {
	text, token := auth.NewToken()
	now := nowUTC().Truncate(time.Microsecond)
	if name == "" {
		name = "rescue-" + token.ID[:8]
	}
	token.Name, token.Role, token.CreatedAt, token.CreatedBy, token.ExpiresAt = name, pki.RoleAdministrator, now, "host", now.Add(life)
	switch h, err := s.Head(ctx); {
	case err != nil:
		return pki.Token{}, err
	case h.Change == 0:
		return pki.Token{}, fault.New(fault.Conflict, "the store is empty").WithHint("start the server once: it makes the first administrator's token")
	}
	if err := keys.WriteFile(path, []byte(text+"\n"), false); err != nil {
		return pki.Token{}, fault.Wrap(fault.Conflict, err, "the token's file cannot be written: %v", err).
			WithHint("name a file that does not exist, in a folder of yours, with --out")
	}
	err := s.CreateToken(ctx, token, audit.Record{
		Time: now, Action: audit.ActionToken, Actor: "host", Role: pki.RoleAdministrator.String(), Target: "token/" + token.ID,
		Detail: map[string]string{"name": name, "role": token.Role.String(), "expires_at": token.ExpiresAt.Format(time.RFC3339), "by": "admin rescue"},
	})
	if err != nil && !errors.Is(err, store.ErrUnknownOutcome) {
		_ = os.Remove(path)
	}
	return token, err
}
