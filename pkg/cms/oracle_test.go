package cms_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"flag"
	"io"
	"math"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/cms"
	raw "github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
)

// The oracle tests: whoever has a message that he cannot read, and sends it again and again, bent, must learn nothing
// from how it fails (Bleichenbacher's and Manger's attacks on the key, Vaudenay's on the content).

var oracleRounds = flag.Int("oracle", 0, "malformed envelopes of each kind, and compare their times; 0: few, and do not")

// onlyDecrypter hides everything of a key but crypto.Decrypter.
type onlyDecrypter struct{ key *rsa.PrivateKey }

func (o onlyDecrypter) Public() crypto.PublicKey { return o.key.Public() }

func (o onlyDecrypter) Decrypt(r io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	return o.key.Decrypt(r, msg, opts)
}

// oracleTarget is an RA of 1024 bits, since thousands of messages are to be decrypted, and a good message to it.
func oracleTarget(t testing.TB, bits int) (id identity, good raw.Envelope) {
	t.Helper()
	id = selfSigned(t, newRSA(bits))
	request := raw.CSR{Key: device().key, Challenges: []string{"secret"}}.Bytes()
	return id, raw.Envelope{To: id.certificate, Plaintext: request}
}

// openLikeServer does what a server does: it parses what comes out, whatever Decrypt says.
func openLikeServer(b []byte, r *cms.Recipient) (good bool, err error) {
	e, err := cms.ParseEnvelopedData(b, cms.Limits{})
	if err != nil {
		return false, err
	}
	content, err := e.Decrypt(r, cms.DecryptOptions{})
	_, parseErr := x509.ParseCertificateRequest(content)
	return err == nil && parseErr == nil, err
}

func TestOracleErrors(t *testing.T) {
	t.Parallel()
	rounds := 5
	if *oracleRounds > 0 {
		rounds = *oracleRounds
	}
	id, good := oracleTarget(t, 1024)
	private := id.key.(*rsa.PrivateKey)
	recipients := map[string]*cms.Recipient{"rsa.PrivateKey": id.recipient(t)}
	var err error
	if recipients["crypto.Decrypter"], err = cms.NewRecipient(id.certificate, onlyDecrypter{private}); err != nil {
		t.Fatal(err)
	}
	_, err = openLikeServer([]byte{}, recipients["rsa.PrivateKey"])
	isBad(t, err, cms.ErrMalformed)
	for name, r := range recipients {
		if ok, err := openLikeServer(good.Bytes(), r); !ok || err != nil {
			t.Fatalf("%s: the good message: %v, %v", name, ok, err)
		}
		var text string
		for _, b := range raw.BadEnvelopes() {
			failed := 0
			for range rounds {
				e := good
				e.SessionKey = raw.Random(16)
				b.Edit(&e, &private.PublicKey)
				ok, err := openLikeServer(e.Bytes(), r)
				if ok {
					t.Fatalf("%s: %s: is opened", name, b.Name)
				}
				if err == nil {
					continue // garbage that happens to be padded; the parser has refused it
				}
				failed++
				isBad(t, err, cms.ErrDecryption)
				if text == "" {
					text = err.Error()
				}
				if err.Error() != text {
					t.Fatalf("%s: %s: got %q, elsewhere %q", name, b.Name, err, text)
				}
			}
			if failed == 0 && !strings.Contains(b.Name, "garbage") {
				t.Errorf("%s: %s: no error in %d tries", name, b.Name, rounds)
			}
		}
	}
}

// TestOracleRepeats: the same bad message is read in the same way each time and by each replica, so that repeating it
// tells nothing, and not as some other message is.
func TestOracleRepeats(t *testing.T) {
	t.Parallel()
	id, good := oracleTarget(t, 2048)
	private := id.key.(*rsa.PrivateKey)
	good.EncryptedKey = raw.PKCS1Block(&private.PublicKey, func([]byte) {})
	other := raw.PKCS1Block(&private.PublicKey, func([]byte) {})
	e, err := cms.ParseEnvelopedData(good.Bytes(), cms.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ra, err := keys.New(keys.PurposeRA, private)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := cms.NewRecipient(id.certificate, ra)
	if err != nil {
		t.Fatal(err)
	}
	// What must come out is the content decrypted under the preset key, for every kind of key: find one that ends in good
	// padding, and it is garbage without an error, everywhere.
	one, two := id.recipient(t), id.recipient(t)
	preset := cms.Preset(one, good.EncryptedKey, e)
	if !slices.Equal(preset, cms.Preset(two, good.EncryptedKey, e)) || !slices.Equal(preset, cms.Preset(sealed, good.EncryptedKey, e)) {
		t.Error("two replicas use different keys")
	}
	if slices.Equal(preset, cms.Preset(one, other, e)) {
		t.Error("two messages have one key")
	}
	good.SessionKey, good.Plaintext = preset, []byte("who knows the preset key can write this")
	e, err = cms.ParseEnvelopedData(good.Bytes(), cms.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*cms.Recipient{"rsa.PrivateKey": one, "again": two, "keys.Key": sealed} {
		if got, err := e.Decrypt(r, cms.DecryptOptions{}); err != nil || string(got) != string(good.Plaintext) {
			t.Errorf("%s: got %q, %v; a bad padding does not lead to the preset key", name, got, err)
		}
	}
	random, err := cms.NewRecipient(id.certificate, onlyDecrypter{private})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(preset, cms.Preset(random, good.EncryptedKey, e)) {
		t.Error("a key that does not sign leads to the same secret")
	}
	good.SessionKey = cms.Preset(random, good.EncryptedKey, e)
	if e, err = cms.ParseEnvelopedData(good.Bytes(), cms.Limits{}); err != nil {
		t.Fatal(err)
	}
	if got, err := e.Decrypt(random, cms.DecryptOptions{}); err != nil || string(got) != string(good.Plaintext) {
		t.Errorf("crypto.Decrypter: got %q, %v; a bad padding does not lead to the preset key", got, err)
	}
}

// counting notes what a key is asked to decrypt.
type counting struct {
	onlyDecrypter
	asked [][]byte
}

func (c *counting) Decrypt(r io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	c.asked = append(c.asked, msg)
	return c.onlyDecrypter.Decrypt(r, msg, opts)
}

// TestOracleWork: every message costs one operation of the private key, and one that RSA does not turn down at once.
func TestOracleWork(t *testing.T) {
	t.Parallel()
	id, good := oracleTarget(t, 1024)
	private := id.key.(*rsa.PrivateKey)
	key := &counting{onlyDecrypter: onlyDecrypter{private}}
	r, err := cms.NewRecipient(id.certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range raw.BadEnvelopes() {
		key.asked = nil
		e := good
		e.SessionKey = raw.Random(16)
		b.Edit(&e, &private.PublicKey)
		_, _ = openLikeServer(e.Bytes(), r)
		if len(key.asked) != 1 || len(key.asked[0]) != private.Size() || new(big.Int).SetBytes(key.asked[0]).Cmp(private.N) >= 0 {
			t.Errorf("%s: the key is asked for %x", b.Name, key.asked)
		}
	}
}

// TestOracleTimes compares the times of all kinds, if asked to: it needs a quiet machine. The kinds take turns in random
// order, and what is compared is the lower half of their times, where less of the noise is. The yardstick of each key
// transport is a message whose keys and paddings are right.
func TestOracleTimes(t *testing.T) {
	if *oracleRounds == 0 {
		t.Skip("needs a quiet machine: go test ./pkg/cms -run OracleTimes -v -oracle 10000")
	}
	id, good := oracleTarget(t, 1024)
	private := id.key.(*rsa.PrivateKey)
	r := id.recipient(t)
	kinds := raw.BadEnvelopes()
	times := make([][]float64, len(kinds))
	const batch = 50
	for done := 0; done < *oracleRounds; done += batch {
		messages := make([][][]byte, len(kinds))
		for k, b := range kinds {
			for range batch {
				e := good
				e.SessionKey = raw.Random(16)
				b.Edit(&e, &private.PublicKey)
				messages[k] = append(messages[k], e.Bytes())
			}
		}
		for i := range batch {
			for _, k := range mathrand.Perm(len(kinds)) {
				start := time.Now()
				_, _ = openLikeServer(messages[k][i], r)
				times[k] = append(times[k], float64(time.Since(start)))
			}
		}
	}
	stats := func(v []float64) (mean, stderr float64) {
		slices.Sort(v)
		v = v[:len(v)/2]
		for _, x := range v {
			mean += x
		}
		mean /= float64(len(v))
		for _, x := range v {
			stderr += (x - mean) * (x - mean)
		}
		return mean, math.Sqrt(stderr/float64(len(v)-1)) / math.Sqrt(float64(len(v)))
	}
	yardsticks := map[bool]int{}
	for k, b := range kinds {
		if strings.Contains(b.Name, "garbage") {
			yardsticks[strings.HasPrefix(b.Name, "OAEP")] = k
		}
	}
	for k, b := range kinds {
		base, baseErr := stats(times[yardsticks[strings.HasPrefix(b.Name, "OAEP")]])
		mean, stderr := stats(times[k])
		t.Logf("%-40s %8.2f us, %+.2f us, t = %+.1f", b.Name, mean/1e3, (mean-base)/1e3,
			(mean-base)/math.Sqrt(stderr*stderr+baseErr*baseErr))
	}
}
