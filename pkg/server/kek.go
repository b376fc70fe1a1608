package server

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// passphrase returns the passphrase of the settings, nil if they name none.
func passphrase(k config.Key) ([]byte, error) {
	switch {
	case k.Passphrase != "":
		return []byte(k.Passphrase), nil
	case k.PassphraseFile != "":
		p, err := readSecretLine(k.PassphraseFile)
		if err != nil {
			return nil, fault.Wrap(fault.Conflict, err, "reading the passphrase")
		}
		return p, nil
	}
	return nil, nil
}

// newKEK returns the key-encryption key for a store that is being set up, making a key file when the settings name nothing
// else. made says that a file was made, which is to be removed if another replica was first.
func newKEK(cfg *config.Config) (kek *keys.KEK, made bool, err error) {
	phrase, err := passphrase(cfg.Key)
	switch {
	case err != nil:
		return nil, false, err
	case phrase != nil:
		kek, err = keys.FromPassphrase(phrase, keys.NewArgon2Params())
	case cfg.Key.Credential != "":
		kek, err = keys.FromCredential(cfg.Key.Credential)
	default:
		path := cfg.KEKFile()
		if kek, err = keys.FromKeyFile(path); errors.Is(err, fs.ErrNotExist) {
			kek, err = keys.CreateKeyFile(path)
			made = err == nil
		}
	}
	if err != nil {
		return nil, false, cannotOpen(err, cfg.Key)
	}
	return kek, made, nil
}

// openKEK returns the key-encryption key of a store that is set up, and has checked that it is the one.
func openKEK(cfg *config.Config, described []byte) (*keys.KEK, error) {
	info, err := keys.ParseKEKInfo(described)
	if err != nil {
		return nil, fmt.Errorf("the store's description of its key-encryption key: %w", err)
	}
	phrase, err := passphrase(cfg.Key)
	if err != nil {
		return nil, err
	}
	var kek *keys.KEK
	switch {
	case info.Kind == keys.PassphraseKEK && phrase == nil:
		return nil, fault.New(fault.Conflict, "the private keys in the store are sealed with a passphrase, and none is given").
			WithHint("set key.passphrase_file in the configuration, or %sKEY_PASSPHRASE", config.EnvPrefix)
	case info.Kind == keys.PassphraseKEK:
		kek, err = info.Open(phrase)
	case cfg.Key.Credential != "":
		if kek, err = keys.FromCredential(cfg.Key.Credential); err == nil {
			err = info.Verify(kek)
		}
	default:
		path := cfg.KEKFile()
		kek, err = keys.FromKeyFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.Wrap(fault.Conflict, err, "the private keys in the store are sealed, and the key file %s is not there", path).
				WithHint("copy it from the replica that set the store up, or from its backup, or name it with --key-file")
		}
		if err == nil {
			err = info.Verify(kek)
		}
	}
	if errors.Is(err, keys.ErrWrongKEK) {
		return nil, fault.Wrap(fault.Conflict, err, "this is not the key that the store's private keys are sealed with").
			WithHint("use the key file or passphrase of the replica that set the store up, or the one that «certwright key rewrap» changed it to")
	}
	if err != nil {
		return nil, cannotOpen(err, cfg.Key)
	}
	return kek, nil
}

// cannotOpen says what is wrong with the source of the key-encryption key, which is the host's, not a client's, to read.
func cannotOpen(err error, k config.Key) error {
	f := fault.New(fault.Conflict, "opening the key-encryption key: %s", err)
	if k.Credential != "" {
		return f.WithHint("the unit needs LoadCredential= or LoadCredentialEncrypted= for %q; for a file, use --key-file", k.Credential)
	}
	return f.WithHint("the key file must be 32 bytes, of mode 0600, and belong to the user that the server runs as")
}

// opener unseals issuers' keys.
func opener(kek *keys.KEK) func([]byte) (crypto.Signer, error) {
	return func(sealed []byte) (crypto.Signer, error) { return keys.Open(kek, keys.PurposeIssuer, sealed) }
}

// describeKEK returns what the store keeps of a key-encryption key.
func describeKEK(kek *keys.KEK) ([]byte, error) {
	info, err := keys.NewKEKInfo(kek)
	if err != nil {
		return nil, err
	}
	return json.Marshal(info)
}

// Rewrap seals every private key in the store under another key-encryption key: the one that to names. Each is opened
// under the new one before anything is replaced, and everything is replaced at once or not at all. A key file that does
// not exist is made. It returns how many keys were rewrapped.
//
// A key-encryption key that has leaked is not cured by this: whoever has it and an old backup has the private keys.
func Rewrap(ctx context.Context, cfg config.Config, to config.Key) (int, error) {
	if err := storeThere(&cfg); err != nil {
		return 0, err
	}
	asIs, no := cfg, false
	asIs.Migrate = &no
	s, err := openStore(ctx, &asIs, nil, 0)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	described, err := s.KEKInfo(ctx)
	if err != nil {
		if fault.Is(err, fault.NotFound) {
			return 0, fault.New(fault.Conflict, "the store is empty: there are no keys to rewrap").WithHint("start the server once")
		}
		return 0, err
	}
	old, err := openKEK(&cfg, described)
	if err != nil {
		return 0, err
	}
	target := cfg
	target.Key = to
	next, made, err := newKEK(&target)
	if err != nil {
		return 0, err
	}
	nextInfo, err := describeKEK(next)
	if err != nil {
		return 0, err
	}
	if bytes.Equal(nextInfo, described) || next.ID() == old.ID() {
		return 0, fault.New(fault.Conflict, "this is the key-encryption key already in use")
	}
	all, err := s.AllIssuers(ctx)
	if err != nil {
		return 0, err
	}
	secrets, err := s.AllSecrets(ctx)
	if err != nil {
		return 0, err
	}
	sealed := store.Sealed{Keys: make(map[int64][]byte, len(all.Keys)), Secrets: make(map[string][]byte, len(secrets))}
	for _, k := range all.Keys {
		if sealed.Keys[k.ID], err = keys.Rewrap(old, next, k.SealedKey); err != nil {
			return 0, fmt.Errorf("rewrapping key %s: %w", k.KeyID, err)
		}
	}
	for name, b := range secrets {
		rewrap := keys.RewrapSecret
		if strings.HasPrefix(name, pki.SecretRA("")) {
			rewrap = keys.Rewrap
		}
		if sealed.Secrets[name], err = rewrap(old, next, b); err != nil {
			return 0, fmt.Errorf("rewrapping %s: %w", name, err)
		}
	}
	n := len(sealed.Keys) + len(sealed.Secrets)
	err = s.ReplaceSealedKeys(ctx, described, nextInfo, sealed, audit.Record{
		Time: nowUTC(), Action: audit.ActionRewrap, Actor: "host", Role: pki.RoleAdministrator.String(), Target: "kek/" + next.ID(),
		Detail: map[string]string{"keys": fmt.Sprint(n), "from": old.ID()},
	})
	if err != nil {
		if made && !errors.Is(err, store.ErrUnknownOutcome) {
			// The new file wraps nothing; leaving it would mislead.
			_ = os.Remove(target.KEKFile())
		}
		return 0, err
	}
	return n, nil
}
