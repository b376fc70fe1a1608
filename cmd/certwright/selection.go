package main

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
)

// statuses are those that the server knows.
var statuses = []string{"valid", "revoked", "hold", "expired"}

// selection are the flags that say which certificates.
type selection struct {
	env                                                    *environment
	q                                                      client.CertificateQuery
	expiresIn                                              span
	expiresAfter, expiresBefore, issuedSince, issuedBefore *instant
}

func selectionFlags(env *environment, cmd *cobra.Command) *selection {
	s := &selection{env: env}
	f := cmd.Flags()
	f.StringVar(&s.q.Issuer, "issuer", "", "of the issuer with this `name`")
	f.StringVar(&s.q.Profile, "profile", "", "of the profile with this `name`")
	f.StringSliceVar(&s.q.Status, "status", nil, "in one of these `states`: valid, revoked, hold, expired; several with commas")
	complete(cmd, "status", statuses...)
	f.Var(&s.expiresIn, "expires-in", "that end within this time from now, as in 30d")
	s.expiresAfter = instantFlag(env, cmd, "expires-after", "that end at this moment or later, as in 2026-11-22")
	s.expiresBefore = instantFlag(env, cmd, "expires-before", "that end before this moment")
	s.issuedSince = instantFlag(env, cmd, "issued-since", "issued at this moment or later; 24h is a day ago")
	s.issuedBefore = instantFlag(env, cmd, "issued-before", "issued before this moment")
	f.StringVar(&s.q.Serial, "serial", "", "with this serial `number`, hexadecimal")
	f.StringVar(&s.q.Fingerprint, "fingerprint", "", "with this `SHA-256` of the whole certificate, hexadecimal: its id")
	f.StringVar(&s.q.SPKISHA256, "spki", "", "for this key: `SHA-256` of its SubjectPublicKeyInfo, hexadecimal")
	f.StringVar(&s.q.Requester, "requester", "", "asked for by this `actor`, as in token:NAME")
	f.StringVar(&s.q.Protocol, "protocol", "", "asked for over this `protocol`, as in rest")
	f.StringVar(&s.q.Device, "device", "", "of the device with this `identity`")
	return s
}

// query checks the flags and returns what they say.
func (s *selection) query(cmd *cobra.Command, args []string) (client.CertificateQuery, error) {
	q := s.q
	for _, status := range q.Status {
		if !slices.Contains(statuses, status) {
			return q, misuse(cmd, "", "--status %q is none of %s", status, strings.Join(statuses, ", "))
		}
	}
	if s.expiresIn != 0 && !s.expiresBefore.IsZero() {
		return q, misuse(cmd, "", "--expires-in and --expires-before exclude each other")
	}
	for _, text := range args {
		q.Text = text
	}
	q.NotAfterFrom, q.NotAfterTo, q.IssuedFrom, q.IssuedTo = s.expiresAfter.Time, s.expiresBefore.Time, s.issuedSince.Time, s.issuedBefore.Time
	if s.expiresIn != 0 {
		now := s.env.now().UTC()
		if q.NotAfterTo = now.Add(time.Duration(s.expiresIn)); q.NotAfterFrom.IsZero() {
			q.NotAfterFrom = now
		}
	}
	return q, nil
}
