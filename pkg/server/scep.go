package server

import (
	"context"
	"crypto"
	"time"

	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/scep"
)

// sealer keeps secrets under the key-encryption key.
type sealer struct{ kek *keys.KEK }

// Seal implements enrollment.Sealer.
func (s sealer) Seal(name string, secret []byte) ([]byte, error) {
	return keys.SealSecret(s.kek, name, secret)
}

// Open implements enrollment.Sealer.
func (s sealer) Open(name string, sealed []byte) ([]byte, error) {
	return keys.OpenSecret(s.kek, name, sealed)
}

// buildEnrollment makes what the watcher keeps current: enrollment points, and the authorities that serve them.
func (s *Server) buildEnrollment(ctx context.Context, kek *keys.KEK) (err error) {
	s.sealer = sealer{kek}
	if s.points, err = enrollment.NewPoints(enrollment.PointsConfig{Store: s.store, Sealer: s.sealer, Logger: s.log}); err != nil {
		return err
	}
	if now, err := s.clock.Check(); err == nil { // else a later start does it
		if err := s.points.EnsureDefault(ctx, now); err != nil {
			return err
		}
	}
	if s.notifier, err = enrollment.NewNotifier(enrollment.NotifierConfig{Store: s.store, Points: s.points, Now: s.clock.Now, Logger: s.log}); err != nil {
		return err
	}
	holder, _ := s.leaseTerms()
	s.ra, err = scep.NewRA(scep.RAConfig{
		Store: s.store, Issuers: s.issuers, CA: s.ca, Holder: holder, Now: s.clock.Now, KeyAge: time.Duration(s.cfg.SCEP.RAKeyAge), Logger: s.log,
		Seal: func(k crypto.Signer) ([]byte, error) { return keys.Seal(kek, keys.PurposeRA, k) },
		Open: func(sealed []byte) (*keys.Key, error) { return keys.Open(kek, keys.PurposeRA, sealed) },
	})
	return err
}

// buildSCEP makes the front-end.
func (s *Server) buildSCEP(parser csr.Parser) (err error) {
	s.scep, err = scep.New(scep.Config{
		Store: s.store, CA: s.ca, Issuers: s.issuers, Points: s.points, RA: s.ra, CRLs: s.crls, Sealer: s.sealer, Clock: s.clock,
		CSRParser: parser, Notifier: s.notifier, Registry: s.devices, Logger: s.log,
	})
	return err
}
