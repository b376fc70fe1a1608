package scepraw

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"slices"

	_ "crypto/md5"  // registers it
	_ "crypto/sha1" // registers it
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// Object identifiers, dotted.
const (
	Data          = "1.2.840.113549.1.7.1"
	SignedData    = "1.2.840.113549.1.7.2"
	EnvelopedData = "1.2.840.113549.1.7.3"

	ContentType    = "1.2.840.113549.1.9.3"
	MessageDigest  = "1.2.840.113549.1.9.4"
	SigningTime    = "1.2.840.113549.1.9.5"
	MessageType    = "2.16.840.1.113733.1.9.2"
	PKIStatus      = "2.16.840.1.113733.1.9.3"
	FailInfo       = "2.16.840.1.113733.1.9.4"
	SenderNonce    = "2.16.840.1.113733.1.9.5"
	RecipientNonce = "2.16.840.1.113733.1.9.6"
	TransactionID  = "2.16.840.1.113733.1.9.7"
	FailInfoText   = "1.3.6.1.5.5.7.24.1"

	ChallengePassword = "1.2.840.113549.1.9.7"
	ExtensionRequest  = "1.2.840.113549.1.9.14"

	RSAEncryption = "1.2.840.113549.1.1.1"
	OAEP          = "1.2.840.113549.1.1.7"
	MGF1          = "1.2.840.113549.1.1.8"
	PSpecified    = "1.2.840.113549.1.1.9"
	PSS           = "1.2.840.113549.1.1.10"
	Ed25519       = "1.3.101.112"

	AES128 = "2.16.840.1.101.3.4.1.2"
	AES192 = "2.16.840.1.101.3.4.1.22"
	AES256 = "2.16.840.1.101.3.4.1.42"
	DES3   = "1.2.840.113549.3.7"
	DES    = "1.3.14.3.2.7"

	AES128GCM = "2.16.840.1.101.3.4.1.6"
)

// Digests and signatures by hash.
var (
	DigestOIDs = map[crypto.Hash]string{
		crypto.MD5: "1.2.840.113549.2.5", crypto.SHA1: "1.3.14.3.2.26", crypto.SHA256: "2.16.840.1.101.3.4.2.1",
		crypto.SHA384: "2.16.840.1.101.3.4.2.2", crypto.SHA512: "2.16.840.1.101.3.4.2.3", crypto.SHA224: "2.16.840.1.101.3.4.2.4",
	}
	RSAWith = map[crypto.Hash]string{
		crypto.MD5: "1.2.840.113549.1.1.4", crypto.SHA1: "1.2.840.113549.1.1.5", crypto.SHA256: "1.2.840.113549.1.1.11",
		crypto.SHA384: "1.2.840.113549.1.1.12", crypto.SHA512: "1.2.840.113549.1.1.13", crypto.SHA224: "1.2.840.113549.1.1.14",
	}
	ECDSAWith = map[crypto.Hash]string{
		crypto.SHA1: "1.2.840.10045.4.1", crypto.SHA256: "1.2.840.10045.4.3.2",
		crypto.SHA384: "1.2.840.10045.4.3.3", crypto.SHA512: "1.2.840.10045.4.3.4",
	}
)

// Sum hashes.
func Sum(h crypto.Hash, b []byte) []byte {
	w := h.New()
	w.Write(b)
	return w.Sum(nil)
}

// Random returns n random octets.
func Random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// Signature signs a message with a key: RSA with PKCS #1 v1.5, ECDSA, Ed25519 (which ignores the hash).
func Signature(key crypto.Signer, h crypto.Hash, message []byte) []byte {
	opts, toSign := crypto.SignerOpts(h), []byte(nil)
	if _, ok := key.(ed25519.PrivateKey); ok {
		opts, toSign = crypto.Hash(0), message
	} else {
		toSign = Sum(h, message)
	}
	sig, err := key.Sign(rand.Reader, toSign, opts)
	if err != nil {
		panic(err)
	}
	return sig
}

// SignatureAlgorithm is the usual AlgorithmIdentifier of a key in a SignerInfo: rsaEncryption for RSA.
func SignatureAlgorithm(key crypto.Signer, h crypto.Hash) []byte {
	switch key.Public().(type) {
	case *rsa.PublicKey:
		return Sequence(OID(RSAEncryption), Null())
	case *ecdsa.PublicKey:
		return Sequence(OID(ECDSAWith[h]))
	}
	return Sequence(OID(Ed25519))
}

// IssuerAndSerial returns IssuerAndSerialNumber of a certificate.
func IssuerAndSerial(c *x509.Certificate) []byte {
	return Sequence(c.RawIssuer, BigInt(c.SerialNumber))
}

// Envelope is an EnvelopedData to make. Fields left zero get what a good client writes.
type Envelope struct {
	To        *x509.Certificate
	Cipher    string // OID; AES128
	Plaintext []byte

	// Key transport.
	OAEP       crypto.Hash // 0: PKCS #1 v1.5
	MGF        crypto.Hash
	Label      []byte
	SessionKey []byte

	// What can be bent.
	Version             []byte // INTEGER
	RecipientID         []byte // RecipientIdentifier
	KeyAlgorithm        []byte // AlgorithmIdentifier
	EncryptedKey        []byte // content of the OCTET STRING
	Recipients          [][]byte
	ContentType         string
	ContentAlgorithm    []byte // AlgorithmIdentifier
	IV                  []byte
	Padded              []byte // plaintext with padding
	Ciphertext          []byte
	CiphertextTail      []byte // follows what is encrypted
	EncryptedContent    []byte // the [0] element
	Originator          []byte // [0] element
	UnprotectedAttrs    []byte // [1] element
	OuterType           string
	BER                 bool // indefinite lengths, and encryptedContent in pieces
	NoEncryptedContent  bool
	TrailingInEnveloped []byte
}

var keySizes = map[string]int{AES128: 16, AES192: 24, AES256: 32, DES3: 24, DES: 8}

func block(cipherOID string, key []byte) cipher.Block {
	var b cipher.Block
	var err error
	switch cipherOID {
	case DES3:
		b, err = des.NewTripleDESCipher(key)
	case DES:
		b, err = des.NewCipher(key)
	default:
		b, err = aes.NewCipher(key)
	}
	if err != nil {
		panic(err)
	}
	return b
}

// Pad pads as RFC 5652, Section 6.3 says.
func Pad(b []byte, size int) []byte {
	n := size - len(b)%size
	return Join(b, slices.Repeat([]byte{byte(n)}, n))
}

// RSA computes m^e mod n on octets: textbook RSA, for paddings of the test's own.
func RSA(k *rsa.PublicKey, m []byte) []byte {
	c := new(big.Int).Exp(new(big.Int).SetBytes(m), big.NewInt(int64(k.E)), k.N)
	return c.FillBytes(make([]byte, k.Size()))
}

// RecipientInfo returns the KeyTransRecipientInfo.
func (e Envelope) RecipientInfo() []byte {
	public, _ := e.To.PublicKey.(*rsa.PublicKey)
	encrypted := e.EncryptedKey
	if encrypted == nil {
		var err error
		if e.OAEP == 0 {
			//lint:ignore SA1019 it is what SCEP uses
			encrypted, err = rsa.EncryptPKCS1v15(rand.Reader, public, e.SessionKey)
		} else {
			mgf := e.MGF
			if mgf == 0 {
				mgf = e.OAEP
			}
			encrypted, err = rsa.EncryptOAEPWithOptions(rand.Reader, public, e.SessionKey, &rsa.OAEPOptions{Hash: e.OAEP, MGFHash: mgf, Label: e.Label})
		}
		if err != nil {
			panic(err)
		}
	}
	algorithm := e.KeyAlgorithm
	if algorithm == nil {
		algorithm = Sequence(OID(RSAEncryption), Null())
		if e.OAEP != 0 {
			mgf := e.MGF
			if mgf == 0 {
				mgf = e.OAEP
			}
			params := [][]byte{
				Context(0, Sequence(OID(DigestOIDs[e.OAEP]), Null())),
				Context(1, Sequence(OID(MGF1), Sequence(OID(DigestOIDs[mgf]), Null()))),
			}
			if e.Label != nil {
				params = append(params, Context(2, Sequence(OID(PSpecified), Octets(e.Label))))
			}
			algorithm = Sequence(OID(OAEP), Sequence(params...))
		}
	}
	id := e.RecipientID
	if id == nil {
		id = IssuerAndSerial(e.To)
	}
	return Sequence(Int(0), id, algorithm, Octets(encrypted))
}

// Bytes returns the ContentInfo.
func (e Envelope) Bytes() []byte {
	if e.Cipher == "" {
		e.Cipher = AES128
	}
	if e.SessionKey == nil {
		e.SessionKey = Random(keySizes[e.Cipher])
	}
	key := make([]byte, keySizes[e.Cipher])
	copy(key, e.SessionKey) // a session key of another length encrypts as if it were cut or filled up
	b := block(e.Cipher, key)
	if e.IV == nil {
		e.IV = Random(b.BlockSize())
	}
	ciphertext := e.Ciphertext
	if ciphertext == nil {
		padded := e.Padded
		if padded == nil {
			padded = Pad(e.Plaintext, b.BlockSize())
		}
		ciphertext = make([]byte, len(padded))
		iv := make([]byte, b.BlockSize())
		copy(iv, e.IV)
		cipher.NewCBCEncrypter(b, iv).CryptBlocks(ciphertext, padded)
	}
	ciphertext = Join(ciphertext, e.CiphertextTail)
	recipients := e.Recipients
	if recipients == nil {
		recipients = [][]byte{e.RecipientInfo()}
	}
	if e.Version == nil {
		e.Version = Int(0)
	}
	if e.ContentType == "" {
		e.ContentType = Data
	}
	if e.ContentAlgorithm == nil {
		e.ContentAlgorithm = Sequence(OID(e.Cipher), Octets(e.IV))
	}
	if e.OuterType == "" {
		e.OuterType = EnvelopedData
	}
	seq, ctx, content := Sequence, Context, TLV(0x80, ciphertext)
	if e.BER {
		seq = func(parts ...[]byte) []byte { return Indefinite(0x30, parts...) }
		ctx = func(n byte, parts ...[]byte) []byte { return Indefinite(0xa0|n, parts...) }
		content = Pieces(0xa0, ciphertext, 100)
	}
	if e.EncryptedContent != nil {
		content = e.EncryptedContent
	}
	if e.NoEncryptedContent {
		content = nil
	}
	return seq(OID(e.OuterType), ctx(0, seq(
		e.Version, e.Originator, Set(recipients...),
		seq(OID(e.ContentType), e.ContentAlgorithm, content),
		e.UnprotectedAttrs, e.TrailingInEnveloped,
	)))
}

// Attribute returns an attribute with these values.
func Attribute(typ string, values ...[]byte) []byte { return Sequence(OID(typ), Set(values...)) }

// Message is a pkiMessage to make. Fields left zero get what a good client writes.
type Message struct {
	Signer *x509.Certificate
	Key    crypto.Signer
	Digest crypto.Hash // SHA256

	Content       []byte // the pkcsPKIEnvelope
	TransactionID string
	MessageType   string
	SenderNonce   []byte

	// What can be bent.
	Omit               []string          // attribute types to leave out
	Replace            map[string][]byte // attribute type -> whole attribute
	Extra              [][]byte          // whole attributes
	NoAttributes       bool              // signs the content directly
	Unsorted           bool              // attributes are sent, and signed, in the opposite of DER's order
	SignSorted         bool              // with Unsorted: signed in DER's order
	Version            []byte
	SID                []byte // SignerIdentifier
	DigestAlgorithm    []byte
	DigestAlgorithms   []byte // the SET; nil: the one
	SignatureAlgorithm []byte
	Sign               func(message []byte) []byte
	EditSignature      func([]byte) []byte
	EContentType       string
	EContent           []byte // the whole [0] element
	NoEContent         bool
	Certificates       [][]byte // nil: the signer's; empty: none
	CRLs               [][]byte
	SignerInfos        func(info []byte) [][]byte
	UnsignedAttrs      []byte // [1] element
	OuterType          string
	BER                bool
	Trailing           []byte
}

// Attributes returns the signed attributes in the order they are written above.
func (m Message) attributes(h crypto.Hash) [][]byte {
	contentType := m.EContentType
	if contentType == "" {
		contentType = Data
	}
	nonce := m.SenderNonce
	if nonce == nil {
		nonce = Random(16)
	}
	var list [][]byte
	add := func(typ string, value []byte) {
		switch bent, ok := m.Replace[typ]; {
		case slices.Contains(m.Omit, typ):
		case ok:
			list = append(list, bent)
		default:
			list = append(list, Attribute(typ, value))
		}
	}
	add(ContentType, OID(contentType))
	add(MessageDigest, Octets(Sum(h, m.Content)))
	add(TransactionID, Printable(m.TransactionID))
	add(MessageType, Printable(m.MessageType))
	add(SenderNonce, Octets(nonce))
	return append(list, m.Extra...)
}

// Bytes returns the ContentInfo.
func (m Message) Bytes() []byte {
	h := m.Digest
	if h == 0 {
		h = crypto.SHA256
	}
	var attributes, signed []byte
	if m.NoAttributes {
		signed = m.Content
	} else {
		list := m.attributes(h)
		set := SetOf(list...)
		signed = set
		if m.Unsorted {
			sorted, err := All(set[len(set)-len(Join(list...)):])
			if err != nil {
				panic(err)
			}
			slices.Reverse(sorted)
			var reversed [][]byte
			for _, e := range sorted {
				reversed = append(reversed, e.Full)
			}
			set = Set(reversed...)
			if !m.SignSorted {
				signed = set
			}
		}
		attributes = Join([]byte{0xa0}, set[1:])
	}
	sign := m.Sign
	if sign == nil {
		sign = func(message []byte) []byte { return Signature(m.Key, h, message) }
	}
	signature := sign(signed)
	if m.EditSignature != nil {
		signature = m.EditSignature(signature)
	}
	or := func(b, def []byte) []byte {
		if b == nil {
			return def
		}
		return b
	}
	orOID := func(s, def string) []byte {
		if s == "" {
			s = def
		}
		return OID(s)
	}
	digest := or(m.DigestAlgorithm, Sequence(OID(DigestOIDs[h]), Null()))
	algorithm := m.SignatureAlgorithm
	if algorithm == nil {
		algorithm = SignatureAlgorithm(m.Key, h)
	}
	sid := m.SID
	if sid == nil {
		sid = IssuerAndSerial(m.Signer)
	}
	info := Sequence(or(m.Version, Int(1)), sid, digest, attributes, algorithm, Octets(signature), m.UnsignedAttrs)
	infos := [][]byte{info}
	if m.SignerInfos != nil {
		infos = m.SignerInfos(info)
	}
	certificates := m.Certificates
	if certificates == nil {
		certificates = [][]byte{m.Signer.Raw}
	}
	seq, ctx, octets := Sequence, Context, Octets(m.Content)
	if m.BER {
		seq = func(parts ...[]byte) []byte { return Indefinite(0x30, parts...) }
		ctx = func(n byte, parts ...[]byte) []byte { return Indefinite(0xa0|n, parts...) }
		octets = Pieces(0x24, m.Content, 100)
	}
	eContent := ctx(0, octets)
	if m.EContent != nil {
		eContent = m.EContent
	}
	if m.NoEContent {
		eContent = nil
	}
	var certs, crls []byte
	if len(certificates) > 0 {
		certs = ctx(0, certificates...)
	}
	if len(m.CRLs) > 0 {
		crls = ctx(1, m.CRLs...)
	}
	return Join(seq(orOID(m.OuterType, SignedData), ctx(0, seq(
		Int(1), or(m.DigestAlgorithms, Set(digest)), seq(orOID(m.EContentType, Data), eContent), certs, crls, Set(infos...),
	))), m.Trailing)
}

// CSR is a PKCS #10 request to make.
type CSR struct {
	Key        crypto.Signer
	Subject    []byte // Name; nil: CN=device
	Challenges []string
	Attributes [][]byte // whole ones
	Digest     crypto.Hash
	// EditSignature bends the proof of possession.
	EditSignature func([]byte) []byte
}

// Name returns a Name of one CN.
func Name(cn string) []byte { return Sequence(Set(Sequence(OID("2.5.4.3"), UTF8(cn)))) }

// Bytes returns the CertificationRequest.
func (c CSR) Bytes() []byte {
	h := c.Digest
	if h == 0 {
		h = crypto.SHA256
	}
	subject := c.Subject
	if subject == nil {
		subject = Name("device")
	}
	spki, err := x509.MarshalPKIXPublicKey(c.Key.Public())
	if err != nil {
		panic(err)
	}
	attributes := slices.Clone(c.Attributes)
	for _, p := range c.Challenges {
		attributes = append(attributes, Attribute(ChallengePassword, Printable(p)))
	}
	slices.SortFunc(attributes, slices.Compare[[]byte])
	tbs := Sequence(Int(0), subject, spki, Context(0, attributes...))
	signature := Signature(c.Key, h, tbs)
	if c.EditSignature != nil {
		signature = c.EditSignature(signature)
	}
	algorithm := Sequence(OID(Ed25519))
	switch c.Key.Public().(type) {
	case *rsa.PublicKey:
		algorithm = Sequence(OID(RSAWith[h]), Null())
	case *ecdsa.PublicKey:
		algorithm = Sequence(OID(ECDSAWith[h]))
	}
	return Sequence(tbs, algorithm, Bits(signature))
}
