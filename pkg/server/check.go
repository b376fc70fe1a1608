package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// How long before its end a CA's certificate is worth a warning.
const expiryWarning = 180 * 24 * time.Hour

// CheckStore opens the store, in use or not, without bringing it up to date, and returns what its own check finds.
func CheckStore(ctx context.Context, cfg config.Config) ([]store.Finding, error) {
	s, err := openToRead(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Check(ctx)
}

// Check looks for everything that is unsafe, or soon to break, in the settings, the data folder and the store, without
// changing any of it. A Serious finding is one that data, keys or service depend on now.
func Check(ctx context.Context, cfg config.Config) ([]store.Finding, error) {
	s, err := openToRead(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	findings, err := s.Check(ctx)
	if err != nil {
		return nil, err
	}
	findings = append(findings, checkFolder(&cfg)...)
	if cfg.Metrics != "" && cfg.Metrics != config.Off && !config.Loopback("http://"+cfg.Metrics) {
		findings = append(findings, store.Finding{
			What: fmt.Sprintf("the metrics listener, %s, tells whoever reaches it names of issuers and profiles, and how much they are used", cfg.Metrics),
			Mend: "have a firewall let only the monitoring through, bind it to loopback, or take the metrics from HTTPS with an auditor's token",
		})
	}
	more, err := checkIssuers(ctx, &cfg, s)
	if err != nil {
		return nil, err
	}
	findings = append(findings, more...)
	// What is serious comes first; else the order of discovery stays.
	slices.SortStableFunc(findings, func(a, b store.Finding) int {
		switch {
		case a.Serious == b.Serious:
			return 0
		case a.Serious:
			return -1
		}
		return 1
	})
	return findings, nil
}

// addresses returns where an issuer's certificate sends verifiers.
func addresses(k *issuer.Key) []string {
	return append(slices.Clone(k.Certificate.CRLDistributionPoints), k.Certificate.OCSPServer...)
}

func loopbackFinding() store.Finding {
	return store.Finding{
		What: "the public URL is one that only this machine can reach: other machines cannot fetch CRLs or ask OCSP with the addresses in the certificates",
		Mend: "set --public-url to where verifiers reach the plain HTTP listener, as in http://pki.example.com, before certificates go to other machines",
	}
}

func checkFolder(cfg *config.Config) (found []store.Finding) {
	if path := cfg.Key.PassphraseFile; path != "" {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			found = append(found, store.Finding{Serious: true, What: fmt.Sprintf("the passphrase file %s can be read by others (mode %04o)", path, info.Mode().Perm()), Mend: "chmod 0600 " + path})
		}
	}
	if phrase, err := passphrase(cfg.Key); err != nil {
		found = append(found, store.Finding{Serious: true, What: "the passphrase cannot be read: " + err.Error(), Mend: "mend key.passphrase_file"})
	} else if phrase == nil && cfg.Key.Credential == "" {
		if rel, err := filepath.Rel(cfg.Data, cfg.KEKFile()); err == nil && filepath.IsLocal(rel) {
			found = append(found, store.Finding{
				What: fmt.Sprintf("the key file %s lies beside the data: whoever copies the folder, or its backup, has the CA's private keys", cfg.KEKFile()),
				Mend: "move it to where backups do not reach and name it with --key-file, or change to a passphrase or a systemd credential with «certwright key rewrap»",
			})
		}
	}
	for _, name := range []string{tokenFile, storeFile} {
		path := filepath.Join(cfg.Data, name)
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			found = append(found, store.Finding{Serious: true, What: fmt.Sprintf("%s can be read by others (mode %04o)", path, info.Mode().Perm()), Mend: "chmod 0600 " + path})
		}
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, tokenFile)); err == nil {
		found = append(found, store.Finding{
			What: "the first administrator's token still lies in the data folder",
			Mend: "make tokens for each person and program with «certwright token create», then revoke «admin» and remove " + filepath.Join(cfg.Data, tokenFile),
		})
	}
	return found
}

// checkIssuers opens every key, and looks at certificates, CRLs and the clock.
func checkIssuers(ctx context.Context, cfg *config.Config, s store.Store) (found []store.Finding, err error) {
	described, err := s.KEKInfo(ctx)
	if fault.Is(err, fault.NotFound) {
		return []store.Finding{{What: "the store is empty", Mend: "start the server once"}}, nil
	}
	if err != nil {
		return nil, err
	}
	kek, err := openKEK(cfg, described)
	if err != nil {
		public := fault.Public(err)
		return []store.Finding{{Serious: true, What: public.Detail, Mend: public.Hint}}, nil
	}
	set, err := issuer.Load(ctx, issuer.Config{Store: s, Open: opener(kek)})
	if err != nil {
		return []store.Finding{{Serious: true, What: "the issuers cannot be loaded: " + err.Error(), Mend: "restore the store from a backup"}}, nil
	}
	head, err := s.Head(ctx)
	if err != nil {
		return nil, err
	}
	now := nowUTC()
	if behind := head.NewestTime.Sub(now); behind > clock.MaxBehind {
		found = append(found, store.Finding{Serious: true, What: fmt.Sprintf("the clock is %s behind the newest record in the store", behind.Round(time.Second)), Mend: "set the clock"})
	}
	// The setting may be a flag of the server's that this command does not have; what the certificates say tells as well.
	loopback := cfg.PublicURL != "" && config.Loopback(cfg.PublicURL)
	for _, k := range set.Current().Keys() {
		loopback = loopback || slices.ContainsFunc(addresses(k), config.Loopback)
	}
	if loopback {
		found = append(found, loopbackFinding())
	}
	for _, k := range set.Current().Keys() {
		found = append(found, checkKey(ctx, cfg, s, k, now)...)
	}
	return found, nil
}

func checkKey(ctx context.Context, cfg *config.Config, s store.Store, k *issuer.Key, now time.Time) (found []store.Finding) {
	name, c := k.Issuer.Name, k.Certificate
	switch left := c.NotAfter.Sub(now); {
	case left < 0:
		found = append(found, store.Finding{Serious: true, What: fmt.Sprintf("the certificate of issuer %s ended on %s", name, c.NotAfter.Format(time.DateOnly)), Mend: "set up a new CA and move the relying parties to it"})
	case left < expiryWarning:
		found = append(found, store.Finding{Serious: true, What: fmt.Sprintf("the certificate of issuer %s ends in %d days", name, int(left.Hours()/24)), Mend: "plan its successor now: certificates under it end with it"})
	}
	if k.Revocation != nil {
		found = append(found, store.Finding{Serious: true, What: fmt.Sprintf("the certificate of issuer %s is %s", name, k.Revocation.Status), Mend: "it issues nothing any more; relying parties refuse what it issued"})
	}
	if alg, err := keys.AlgorithmOf(c.PublicKey); err == nil && alg == keys.Ed25519 {
		found = append(found, store.Finding{What: fmt.Sprintf("issuer %s has an Ed25519 key, which Chromium, NSS and S/MIME programs do not accept", name), Mend: "use P-256 where such programs are relying parties"})
	}
	if cfg.PublicURL != "" && !k.SelfSigned() {
		for _, u := range addresses(k) {
			if !strings.HasPrefix(u, cfg.PublicURL+"/") {
				found = append(found, store.Finding{
					What: fmt.Sprintf("the certificate of issuer %s names the address %s, and the public URL is %s", name, u, cfg.PublicURL),
					Mend: "keep the old address working, or set the CA up again with the right public URL while nothing depends on it",
				})
				break
			}
		}
	}
	switch l, err := s.LatestCRL(ctx, k.ID, pki.ScopeFull, nil); {
	case fault.Is(err, fault.NotFound):
		found = append(found, store.Finding{Serious: true, What: fmt.Sprintf("issuer %s has published no CRL", name), Mend: "start the server; if it runs, its log knows why"})
	case err != nil:
		found = append(found, store.Finding{Serious: true, What: fmt.Sprintf("the CRL of issuer %s cannot be read: %v", name, err), Mend: "see the store's own findings"})
	case now.After(l.NextUpdate):
		found = append(found, store.Finding{Serious: true, What: fmt.Sprintf("the CRL of issuer %s ended on %s: verifiers refuse everybody", name, l.NextUpdate.Format(time.RFC3339)), Mend: "start the server; if it runs, its log knows why"})
	}
	return found
}
