package scepraw

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// Keys is a supply of RSA-2048 keys for fleets of simulated devices. Primes are dear and pairs of them are many: each key
// is a pair of few primes, and no two are the same. Whoever has two such keys can factor them; they are for tests. The zero
// value is ready, and safe for concurrent use.
type Keys struct {
	mu     sync.Mutex
	primes []*big.Int // guarded by mu
	next   int        // guarded by mu
}

// Next returns a key that it has not returned before.
func (k *Keys) Next() *rsa.PrivateKey {
	k.mu.Lock()
	at, second := k.next, 1
	k.next++
	for at >= second {
		at -= second
		second++
	}
	for len(k.primes) <= second {
		k.primes = append(k.primes, newPrime())
	}
	p, q := k.primes[second], k.primes[at]
	k.mu.Unlock()
	return keyOf(p, q)
}

// newPrime draws a prime of a key with the exponent 65537. Its two highest bits are set: a product of two has 2048.
func newPrime() *big.Int {
	one := big.NewInt(1)
	for {
		p, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			panic(err)
		}
		if new(big.Int).GCD(nil, nil, new(big.Int).Sub(p, one), big.NewInt(65537)).Cmp(one) == 0 {
			return p
		}
	}
}

func keyOf(p, q *big.Int) *rsa.PrivateKey {
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, Primes: []*big.Int{p, q}}
	key.D = new(big.Int).ModInverse(big.NewInt(int64(key.E)), phi)
	key.Precompute()
	return key
}

// SelfSigned returns what a client signs its first request with (RFC 8894, Section 2.3).
func SelfSigned(key crypto.Signer, cn string) *x509.Certificate {
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(Random(8)), Subject: pkix.Name{CommonName: cn}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	raw, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		panic(err)
	}
	return c
}

// Request is an enrollment or a renewal, as a good client sends it.
type Request struct {
	RA            *x509.Certificate // to which it is encrypted
	MessageType   string            // PKCSReq ("19")
	TransactionID string
	Key           crypto.Signer     // of the certificate to be
	Signer        *x509.Certificate // of the message; nil: one that Key has signed
	SignKey       *rsa.PrivateKey   // Signer's; nil: Key, which then is RSA
	CommonName    string
	DNSNames      []string
	Challenge     string      // empty: none
	Digest        crypto.Hash // of the message's signature; SHA256
}

// Sent is a message and what it takes to read the answer.
type Sent struct {
	Body          []byte
	signer        *x509.Certificate
	key           *rsa.PrivateKey
	transactionID string
	nonce         []byte
}

// Send makes the message, with a new senderNonce and envelope each time.
func (r Request) Send() Sent {
	if r.MessageType == "" {
		r.MessageType = "19"
	}
	if r.SignKey == nil {
		r.SignKey, _ = r.Key.(*rsa.PrivateKey)
	}
	if r.Signer == nil {
		r.Signer = SelfSigned(r.SignKey, r.CommonName)
	}
	c := CSR{Key: r.Key, Subject: Name(r.CommonName)}
	if r.Challenge != "" {
		c.Challenges = []string{r.Challenge}
	}
	if len(r.DNSNames) > 0 {
		var names [][]byte
		for _, n := range r.DNSNames {
			names = append(names, TLV(0x82, []byte(n)))
		}
		c.Attributes = [][]byte{Attribute(ExtensionRequest, Sequence(Sequence(OID("2.5.29.17"), Octets(Sequence(names...)))))}
	}
	s := Sent{signer: r.Signer, key: r.SignKey, transactionID: r.TransactionID, nonce: Random(16)}
	s.Body = Message{
		Signer: r.Signer, Key: r.SignKey, Digest: r.Digest, Content: Envelope{To: r.RA, Plaintext: c.Bytes()}.Bytes(),
		TransactionID: r.TransactionID, MessageType: r.MessageType, SenderNonce: s.nonce,
	}.Bytes()
	return s
}

// Poll makes a CertPoll (RFC 8894, Section 3.3.3) for a request that waits.
func (r Request) Poll(issuer *x509.Certificate) Sent {
	if r.SignKey == nil {
		r.SignKey, _ = r.Key.(*rsa.PrivateKey)
	}
	if r.Signer == nil {
		r.Signer = SelfSigned(r.SignKey, r.CommonName)
	}
	s := Sent{signer: r.Signer, key: r.SignKey, transactionID: r.TransactionID, nonce: Random(16)}
	s.Body = Message{
		Signer: r.Signer, Key: r.SignKey, Digest: r.Digest, Content: Envelope{To: r.RA, Plaintext: Sequence(issuer.RawSubject, Name(r.CommonName))}.Bytes(),
		TransactionID: r.TransactionID, MessageType: "20", SenderNonce: s.nonce,
	}.Bytes()
	return s
}

// Answer is what a client makes of a CertRep.
type Answer struct {
	Status      string            // pkiStatus: "0" SUCCESS, "2" FAILURE, "3" PENDING
	FailInfo    string            // of a FAILURE
	Text        string            // failInfoText
	Certificate *x509.Certificate // of a SUCCESS
}

// String is for people.
func (a Answer) String() string {
	switch a.Status {
	case "0":
		return fmt.Sprintf("SUCCESS with %x", a.Certificate.SerialNumber)
	case "3":
		return "PENDING"
	}
	return fmt.Sprintf("FAILURE %s %q", a.FailInfo, a.Text)
}

// Read verifies the answer that one of signers has signed, and opens it.
func (s Sent) Read(body []byte, signers ...*x509.Certificate) (Answer, error) {
	rep, err := ReadCertRep(body, signers...)
	if err != nil {
		return Answer{}, err
	}
	var a Answer
	a.Status, a.FailInfo, a.Text = rep.Status()
	switch {
	case rep.Text(TransactionID, 0x13) != s.transactionID || !bytes.Equal(rep.Attributes[RecipientNonce].Body, s.nonce):
		return a, errors.New("scepraw: the answer is for another request")
	case a.Status == "2" || a.Status == "3":
		return a, nil
	case a.Status != "0":
		return a, fmt.Errorf("scepraw: pkiStatus %q", a.Status)
	}
	opened, err := Open(rep.Content, s.signer, s.key)
	if err != nil {
		return a, err
	}
	list, _, err := Degenerate(opened.Plaintext)
	if err != nil {
		return a, err
	}
	if len(list) != 1 {
		return a, fmt.Errorf("scepraw: %d certificates in the answer, want the issued one alone", len(list))
	}
	a.Certificate, err = x509.ParseCertificate(list[0].Full)
	return a, err
}

// CACertificates reads an answer to GetCACert: the RA's certificate, and those of the CAs in their order.
func CACertificates(body []byte) (ra *x509.Certificate, cas []*x509.Certificate, err error) {
	list, _, err := Degenerate(body)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range list {
		c, err := x509.ParseCertificate(e.Full)
		if err != nil {
			return nil, nil, err
		}
		switch {
		case c.IsCA:
			cas = append(cas, c)
		case ra == nil:
			ra = c
		default:
			return nil, nil, errors.New("scepraw: GetCACert brings two RAs")
		}
	}
	if ra == nil || len(cas) == 0 {
		return nil, nil, errors.New("scepraw: GetCACert brings no RA, or no CA")
	}
	return ra, cas, nil
}
