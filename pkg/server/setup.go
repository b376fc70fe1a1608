package server

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// setUp returns the key-encryption key of the store, setting the store up first if it is empty.
func (s *Server) setUp(ctx context.Context) (*keys.KEK, error) {
	described, err := s.store.KEKInfo(ctx)
	if err == nil {
		return openKEK(&s.cfg, described)
	}
	if !fault.Is(err, fault.NotFound) {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	kek, made, err := newKEK(&s.cfg)
	if err != nil {
		return nil, err
	}
	err = s.bootstrap(ctx, kek)
	if errors.Is(err, store.ErrNotEmpty) {
		// Another replica was faster. A key file of ours wraps nothing, and would mislead.
		if made {
			_ = os.Remove(s.cfg.KEKFile())
		}
		if described, err = s.store.KEKInfo(ctx); err != nil {
			return nil, fmt.Errorf("reading the store: %w", err)
		}
		return openKEK(&s.cfg, described)
	}
	return kek, err
}

// bootstrap fills an empty store. The token's file is written first: a store whose first token nobody has is worthless,
// a file without a store does no harm and is written over by the next try.
func (s *Server) bootstrap(ctx context.Context, kek *keys.KEK) error {
	info, err := describeKEK(kek)
	if err != nil {
		return err
	}
	text, token := auth.NewToken()
	now := s.clock.Now().Truncate(time.Microsecond)
	token.Name, token.Role, token.CreatedAt, token.CreatedBy = "admin", pki.RoleAdministrator, now, "host"
	s.TokenFile = filepath.Join(s.cfg.Data, tokenFile)
	if err := keys.WriteFile(s.TokenFile, []byte(text+"\n"), true); err != nil {
		return fmt.Errorf("writing the first token: %w", err)
	}
	err = ca.Bootstrap(ctx, s.store, ca.Hierarchy{
		Organization: s.cfg.Init.Name, Algorithm: s.cfg.Init.KeyAlgorithm, PublicURL: s.PublicURL, Now: now,
		Seal:    func(k crypto.Signer) ([]byte, error) { return keys.Seal(kek, keys.PurposeIssuer, k) },
		KEKInfo: info, Token: token,
	})
	if err != nil {
		if !errors.Is(err, store.ErrUnknownOutcome) {
			_ = os.Remove(s.TokenFile)
			s.TokenFile = ""
		}
		return err
	}
	s.First = true
	return nil
}
