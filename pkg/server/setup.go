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
	if !errors.Is(err, store.ErrNotEmpty) {
		return kek, err
	}
	// Another replica was faster. If it used the very key file that we made, in a folder that we share, all is well;
	// otherwise our file wraps nothing, and would mislead.
	if described, err = s.store.KEKInfo(ctx); err != nil {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	shared, err := openKEK(&s.cfg, described)
	if made && errors.Is(err, keys.ErrWrongKEK) {
		_ = os.Remove(s.cfg.KEKFile())
	}
	return shared, err
}

// bootstrap fills an empty store. The token is on the disk before the store has it, under another name: a store whose
// first token nobody has is worthless, and the token of a replica that was faster, in a folder that we share, must stay.
func (s *Server) bootstrap(ctx context.Context, kek *keys.KEK) error {
	info, err := describeKEK(kek)
	if err != nil {
		return err
	}
	text, token := auth.NewToken()
	now := s.clock.Now().Truncate(time.Microsecond)
	token.Name, token.Role, token.CreatedAt, token.CreatedBy = "admin", pki.RoleAdministrator, now, "host"
	s.TokenFile = filepath.Join(s.cfg.Data, tokenFile)
	written := filepath.Join(s.cfg.Data, tokenFile+"."+token.ID)
	if err := keys.WriteFile(written, []byte(text+"\n"), true); err != nil {
		return fmt.Errorf("writing the first token: %w", err)
	}
	err = ca.Bootstrap(ctx, s.store, ca.Hierarchy{
		Organization: s.cfg.Init.Name, Algorithm: s.cfg.Init.KeyAlgorithm, PublicURL: s.PublicURL, Now: now,
		Seal:    func(k crypto.Signer) ([]byte, error) { return keys.Seal(kek, keys.PurposeIssuer, k) },
		KEKInfo: info, Token: token,
	})
	if err != nil {
		if !errors.Is(err, store.ErrUnknownOutcome) {
			_ = os.Remove(written)
			s.TokenFile = ""
		}
		return err
	}
	s.First = true
	if err := os.Rename(written, s.TokenFile); err != nil {
		return fmt.Errorf("the first token is in %s: %w", written, err)
	}
	return nil
}
