package scep

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/store"
)

// maxNeeds bounds how often a verdict may ask for one more fact.
const maxNeeds = 16

// settle decides on a request, and looks up what the verdict needs, no more: every look costs the device time.
func (h *Handler) settle(ctx context.Context, f *enrollment.Facts, ask func(enrollment.Verdict) (enrollment.WebhookAnswer, error)) (enrollment.Verdict, error) {
	for range maxNeeds {
		v := enrollment.Decide(f)
		if v.Outcome != 0 {
			if fault.Is(v.Err, fault.Internal) { // what the store holds is broken
				return v, v.Err
			}
			return v, nil
		}
		var err error
		switch v.Need {
		case enrollment.NeedDevice:
			err = h.lookUpDevice(ctx, f, v.Device)
		case enrollment.NeedNewer:
			err = h.lookUpNewer(ctx, f, v.Line)
		case enrollment.NeedStanding:
			err = h.lookUpStanding(ctx, f, v.Line)
		case enrollment.NeedKeyDevices:
			f.KeyDevices, err = h.cfg.Store.KeyDevices(ctx, f.Key)
		case enrollment.NeedWebhook:
			var answer enrollment.WebhookAnswer
			answer, err = ask(v)
			f.Webhook = &answer
		default:
			err = fmt.Errorf("a verdict needs %d", v.Need)
		}
		if err != nil {
			return v, err
		}
	}
	return enrollment.Verdict{}, fmt.Errorf("a verdict needs more than %d facts", maxNeeds)
}

func (h *Handler) lookUpDevice(ctx context.Context, f *enrollment.Facts, id string) error {
	d, err := h.cfg.Store.Device(ctx, id)
	switch {
	case fault.Is(err, fault.NotFound):
		f.Devices[id] = nil
		return nil
	case err != nil:
		return err
	}
	f.Devices[id] = &d
	return nil
}

// lookUpNewer finds out whether the signer is the newest of its line.
func (h *Handler) lookUpNewer(ctx context.Context, f *enrollment.Facts, line enrollment.Line) error {
	s := f.Signer
	if line.Device != "" {
		if _, known := f.Devices[line.Device]; !known {
			if err := h.lookUpDevice(ctx, f, line.Device); err != nil {
				return err
			}
		}
		if d := f.Devices[line.Device]; d != nil && d.Certificate == s.Fingerprint {
			f.Newer[line] = time.Time{}
			return nil
		}
		list, _, err := h.cfg.Store.ListCertificates(ctx, store.CertificateFilter{Device: line.Device, Profiles: []string{line.Profile}}, store.Page{Limit: 1})
		if err != nil {
			return err
		}
		if len(list) == 1 && list[0].Fingerprint != s.Fingerprint && !list[0].IssuedAt.Before(s.IssuedAt) {
			f.Newer[line] = list[0].IssuedAt
			return nil
		}
		if s.Device != "" { // what renews it would be of the device, and in the list
			f.Newer[line] = time.Time{}
			return nil
		}
	}
	next, err := h.cfg.Store.Successor(ctx, s.Fingerprint)
	if fault.Is(err, fault.NotFound) {
		f.Newer[line] = time.Time{}
		return nil
	}
	f.Newer[line] = next.IssuedAt
	return err
}

func (h *Handler) lookUpStanding(ctx context.Context, f *enrollment.Facts, line enrollment.Line) error {
	list, _, err := h.cfg.Store.ListCertificates(ctx, store.CertificateFilter{
		Device: line.Device, Profiles: []string{line.Profile}, Status: []pki.Status{pki.Good}, NotAfterFrom: f.Now,
	}, store.Page{Limit: 1})
	f.Standing[line] = len(list) > 0
	return err
}

// newFacts returns what is known of a request before the store is asked. text is its challenge.
func newFacts(point *enrollment.Point, issuerID int64, request *csr.Request) *enrollment.Facts {
	return &enrollment.Facts{
		Point: point, Protocol: Protocol, IssuerID: issuerID, Key: request.SPKIHash, Subject: request.Subject, SANs: request.SANs,
		Challenge: strings.TrimSpace(request.ChallengePassword.Reveal()) != "",
		Devices:   map[string]*pki.Device{}, Newer: map[enrollment.Line]time.Time{}, Standing: map[enrollment.Line]bool{},
	}
}

// signerOf returns what the policy asks of a certificate of ours. parsed may be nil.
func (h *Handler) signerOf(c *pki.Certificate, parsed *x509.Certificate, request *csr.Request) (*enrollment.Signer, error) {
	s := &enrollment.Signer{Certificate: c}
	if parsed == nil {
		var err error
		if parsed, err = x509.ParseCertificate(c.DER); err != nil {
			return nil, fault.Wrap(fault.PolicyRefused, err, "the certificate was imported without its contents and cannot be renewed")
		}
	}
	var err error
	if s.Subject, s.SANs, err = csr.Names(parsed); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "reading the names of a certificate of ours")
	}
	key := h.cfg.Issuers.Current().KeyByInternalID(c.IssuerKeyID)
	s.Void = key == nil || key.Revocation != nil || h.cfg.CA.CheckKey(c.SPKIHash) != nil
	s.Makes = func(b enrollment.Binding) ([]der.Attribute, []der.GeneralName) {
		p, err := h.cfg.CA.Profile(c.Profile)
		if err != nil {
			return nil, nil
		}
		made, err := p.Contents(profile.Input{
			PublicKey: request.PublicKey, CSR: profile.Wishes{Subject: s.Subject}, Subject: b.Subject, SANs: b.SANs,
			Requester: c.Requester, Role: pki.RoleEnroller.String(), Protocol: Protocol, Device: c.Device, Now: c.IssuedAt,
		})
		if err != nil { // names that the profile does not allow are none that it makes
			return nil, nil
		}
		return made.Subject, made.SANs
	}
	return s, nil
}

// lookUp reads what the store knows of the request, at once.
func (t *transaction) lookUp(request *csr.Request) (*enrollment.Facts, pki.Enrollment, error) {
	f := newFacts(t.point, t.issuer.ID, request)
	f.Now, f.Digest, f.SignerKey, f.SelfSigned = t.now, t.request.Digest(), t.signerHash, t.selfSigned
	q := store.RequestQuery{Point: t.point.Name(), TransactionID: t.request.TransactionID, SPKIHash: request.SPKIHash}
	q.KeyDevices = !t.legacy(enrollment.LegacySharedKeys)
	if t.own != nil {
		q.Device, q.KeyDevices = t.own.Device, q.KeyDevices && t.own.SPKIHash != request.SPKIHash
		var err error
		if f.Signer, err = t.h.signerOf(t.own, t.signer, request); err != nil {
			return nil, pki.Enrollment{}, err
		}
	}
	if q.Device == "" {
		q.Device, _ = t.point.DeviceIn(request.Subject, request.SANs) // the verdict says what is wrong with it
	}
	text := strings.TrimSpace(request.ChallengePassword.Reveal())
	id, hash, ok := enrollment.ParseChallenge(text)
	if ok {
		q.Challenge = id
	}
	about, err := t.h.cfg.Store.Request(t.ctx, q)
	if err != nil {
		return nil, pki.Enrollment{}, err
	}
	f.Static, f.KeyDevices = t.point.IsStatic(text), about.KeyDevices
	if ok && about.Challenge == nil {
		// What looks like a one-time challenge is nothing else: a secret with an error in it is not for a webhook to see.
		f.Challenge = f.Static
	}
	if c := about.Challenge; c != nil {
		if enrollment.Matches(*c, hash) {
			f.OneTime = c
		} else {
			f.WrongSecret, t.wrongSecret = true, c.ID
		}
		if c.Device != "" {
			q.Device = c.Device
		}
	}
	if q.Device != "" {
		f.Devices[q.Device] = about.Device
	}
	before := pki.Enrollment{}
	if about.Enrollment != nil {
		if before = *about.Enrollment; !t.now.Before(before.ExpiresAt) {
			if before.State == pki.EnrollmentPending { // the row is about to be written over
				if err := t.h.expire(t.ctx, before, t.now); err != nil {
					return nil, pki.Enrollment{}, err
				}
				before.Version++
			}
			before = pki.Enrollment{Version: before.Version}
		}
	}
	return f, before, nil
}
