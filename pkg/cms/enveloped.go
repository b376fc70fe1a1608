package cms

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certwright/certwright/pkg/fault"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// EnvelopedData is a parsed EnvelopedData (RFC 5652, Section 6.1). Content is encrypted, not authenticated: whatever
// comes out may be made by anyone. It may share memory with the octets it was parsed from.
type EnvelopedData struct {
	// Cipher is the content-encryption algorithm.
	Cipher Cipher

	recipients []recipientInfo
	iv         []byte
	ciphertext []byte
}

// recipientInfo is a KeyTransRecipientInfo or a PasswordRecipientInfo (RFC 5652, Sections 6.2.1 and 6.2.4).
type recipientInfo struct {
	id         identifier
	transport  KeyTransport
	label      []byte // of OAEP
	password   *passwordInfo
	err        error // algorithm that is not supported
	encrypted  []byte
	isPassword bool
}

// ParseEnvelopedData reads a ContentInfo that holds EnvelopedData with CBC encrypted content, in BER or DER. Errors are
// faults that wrap ErrMalformed, or ErrAlgorithm for a cipher that is unknown. What depends on the ciphertext is not
// judged here.
func ParseEnvelopedData(b []byte, l Limits) (*EnvelopedData, error) {
	l = l.withDefaults()
	body, err := contentInfo(b, l, oidEnvelopedData)
	if err != nil {
		return nil, err
	}
	e := &EnvelopedData{}
	var version int
	if !body.ReadASN1Integer(&version) || version < 0 || version > 5 {
		return nil, malformed("version of the EnvelopedData cannot be read")
	}
	var infos cryptobyte.String
	if !body.SkipOptionalASN1(tag0Constructed) || !body.ReadASN1(&infos, cbasn1.SET) { // originatorInfo
		return nil, malformed("recipientInfos cannot be read")
	}
	for n := 0; !infos.Empty(); n++ {
		if n == l.MaxRecipients {
			return nil, malformed("the message has more than %d recipientInfos", l.MaxRecipients)
		}
		if err := e.parseRecipient(&infos); err != nil {
			return nil, err
		}
	}
	var content, id cryptobyte.String
	// unprotectedAttrs mean nothing here.
	if !body.ReadASN1(&content, cbasn1.SEQUENCE) || !body.SkipOptionalASN1(tag1Constructed) || !body.Empty() ||
		!content.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) {
		return nil, malformed("encryptedContentInfo cannot be read")
	}
	if oid(id) != oidData { // RFC 8894, Section 3.2.2
		return nil, malformed("the encrypted content has type %v, want %v", oid(id), oidData)
	}
	a, ok := readAlgorithm(&content, cbasn1.SEQUENCE)
	if !ok {
		return nil, malformed("contentEncryptionAlgorithm cannot be read")
	}
	if e.Cipher, ok = cipherOf(a.id); !ok {
		return nil, unsupported("content encryption algorithm %v is not supported", a.id)
	}
	if e.iv, ok = readIV(a.params, e.Cipher); !ok {
		return nil, malformed("the initialisation vector is not one of %v", e.Cipher)
	}
	if e.ciphertext, ok = implicitOctets(&content, 0); !ok || !content.Empty() {
		return nil, malformed("encryptedContent cannot be read")
	}
	return e, nil
}

func readIV(params cryptobyte.String, c Cipher) ([]byte, bool) {
	var iv cryptobyte.String
	ok := params.ReadASN1(&iv, cbasn1.OCTET_STRING) && params.Empty() && len(iv) == c.spec().blkLen
	return iv, ok
}

// parseRecipient reads one RecipientInfo. Kinds that nobody uses for SCEP are passed over.
func (e *EnvelopedData) parseRecipient(s *cryptobyte.String) error {
	var body cryptobyte.String
	var tag cbasn1.Tag
	if !s.ReadAnyASN1(&body, &tag) {
		return malformed("a recipientInfo cannot be read")
	}
	switch tag {
	case cbasn1.SEQUENCE:
		var r recipientInfo
		var version int
		var ok bool
		if !body.ReadASN1Integer(&version) {
			return malformed("a recipientInfo cannot be read")
		}
		if r.id, ok = readIdentifier(&body); !ok {
			return malformed("a recipientInfo's rid cannot be read")
		}
		a, ok := readAlgorithm(&body, cbasn1.SEQUENCE)
		if !ok {
			return malformed("a recipientInfo's keyEncryptionAlgorithm cannot be read")
		}
		var encrypted cryptobyte.String
		if !body.ReadASN1(&encrypted, cbasn1.OCTET_STRING) || !body.Empty() {
			return malformed("a recipientInfo's encryptedKey cannot be read")
		}
		r.encrypted = encrypted
		r.transport, r.label, r.err = parseKeyTransport(a)
		e.recipients = append(e.recipients, r)
	case cbasn1.Tag(3).ContextSpecific().Constructed():
		r, err := parsePasswordRecipient(body)
		if err != nil {
			return err
		}
		e.recipients = append(e.recipients, r)
	}
	return nil
}

// parseKeyTransport reads rsaEncryption and id-RSAES-OAEP (RFC 4055, Section 4.1). An error is for whoever chooses this
// recipient.
func parseKeyTransport(a algorithm) (k KeyTransport, label []byte, err error) {
	switch a.id {
	case oidRSA:
		if !a.hasNoParams() {
			return k, nil, malformed("rsaEncryption has parameters")
		}
		return k, nil, nil
	case oidOAEP:
		bad := unsupported("RSAES-OAEP parameters are not supported")
		params := a.params
		var body, source cryptobyte.String
		var present bool
		if params.Empty() || a.hasNoParams() {
			// All defaults make an empty SEQUENCE, but some leave that out too.
			return KeyTransport{OAEPHash: crypto.SHA1, MGFHash: crypto.SHA1}, nil, nil
		}
		if !params.ReadASN1(&body, cbasn1.SEQUENCE) {
			return k, nil, bad
		}
		var ok bool
		if k.OAEPHash, k.MGFHash, ok = readHashAndMGF(&body); !ok {
			return k, nil, bad
		}
		if !body.ReadOptionalASN1(&source, &present, cbasn1.Tag(2).ContextSpecific().Constructed()) || !body.Empty() {
			return k, nil, bad
		}
		if present {
			p, ok := readAlgorithm(&source, cbasn1.SEQUENCE)
			var l cryptobyte.String
			if !ok || !source.Empty() || p.id != oidPSpecified || !p.params.ReadASN1(&l, cbasn1.OCTET_STRING) {
				return k, nil, bad
			}
			label = l
		}
		return k, label, nil
	}
	return k, nil, unsupported("key encryption algorithm %v is not supported", a.id)
}

// Recipient is a certificate with the RSA key that decrypts what is sent to it. Make one with [NewRecipient]. It is
// safe for concurrent use if its key is.
type Recipient struct {
	certificate *x509.Certificate
	key         crypto.Decrypter
	modulus     []byte
	secret      [sha256.Size]byte
}

// SessionKeyDecrypter is what a key may offer besides crypto.Decrypter: decryption of PKCS #1 v1.5 into a preset key,
// as [rsa.DecryptPKCS1v15SessionKey]. Without it Decrypt gets a reader that yields the preset key, which *rsa.PrivateKey
// heeds.
type SessionKeyDecrypter interface {
	// DecryptSessionKey overwrites key if ciphertext holds a well-padded key of that length, else leaves it, in the same
	// time. An error is only about what everybody can see, such as the length of the ciphertext.
	DecryptSessionKey(ciphertext, key []byte) error
}

// implicitRejection is signed once for each recipient; see NewRecipient. It is no DER, so no message's signed attributes.
const implicitRejection = "certwright cms implicit rejection"

// NewRecipient returns a recipient for a certificate and its RSA key. It keeps both. Another key is an error.
//
// What takes the place of a key that does not decrypt is an HMAC of the ciphertext, so that sending a message again
// tells nothing (see [EnvelopedData.Decrypt]). The HMAC's own key is derived from the private key when that can sign:
// then all replicas and restarts agree on it. Otherwise it is drawn at random.
func NewRecipient(certificate *x509.Certificate, key crypto.Decrypter) (*Recipient, error) {
	if certificate == nil || key == nil {
		return nil, errors.New("cms: a recipient needs a certificate and a key")
	}
	public, ok := key.Public().(*rsa.PublicKey)
	if !ok || !public.Equal(certificate.PublicKey) {
		return nil, errors.New("cms: the recipient's key is not RSA, or not the one of its certificate")
	}
	r := &Recipient{certificate: certificate, key: key, modulus: public.N.Bytes()}
	if signer, ok := key.(crypto.Signer); ok {
		// RSASSA-PKCS1-v1_5 has one signature for one message, and only who has the key can know it.
		digest := sha256.Sum256([]byte(implicitRejection))
		signature, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("cms: deriving a secret from the recipient's key: %w", err)
		}
		r.secret = sha256.Sum256(signature)
		return r, nil
	}
	_, _ = rand.Read(r.secret[:])
	return r, nil
}

// Certificate returns the recipient's certificate.
func (r *Recipient) Certificate() *x509.Certificate { return r.certificate }

// Recipient returns the first of candidates that a recipientInfo of the message names, by issuerAndSerialNumber or
// subjectKeyIdentifier. If there is none, it is a fault that wraps ErrNoRecipient.
func (e *EnvelopedData) Recipient(candidates ...*Recipient) (*Recipient, error) {
	for _, c := range candidates {
		if e.find(c) != nil {
			return c, nil
		}
	}
	return nil, noRecipient()
}

func noRecipient() error {
	return fault.Wrap(fault.BadRequest, ErrNoRecipient, "the message is not encrypted to a key of this server")
}

func (e *EnvelopedData) find(r *Recipient) *recipientInfo {
	for i := range e.recipients {
		if info := &e.recipients[i]; !info.isPassword && info.id.names(r.certificate) {
			return info
		}
	}
	return nil
}

// KeyTransport tells how the key was encrypted to a recipient, for an answer in kind. The zero value, PKCS #1 v1.5, if
// it was not.
func (e *EnvelopedData) KeyTransport(r *Recipient) KeyTransport {
	if info := e.find(r); info != nil {
		return info.transport
	}
	return KeyTransport{}
}

// DecryptOptions relax what is decrypted. The zero value is the safe default.
type DecryptOptions struct {
	// AllowDES decrypts single DES, against RFC 8894, Section 2.9, for devices that can do nothing else.
	AllowDES bool
}

// Decrypt returns the content that is encrypted to r.
//
// If anything is wrong with it once the private key is used (padding of RSA, OAEP or CBC, length of the key, length of
// the ciphertext) the error is one fault that wraps ErrDecryption, always the same, and content is not nil but zero
// octets, as many as there might have been. Or there is no error and the content is garbage: a wrong key ends in good
// padding once in 256 times. A caller that answers strangers must therefore parse the content in both cases and give one
// answer when it fails here or there, or it tells with its time what it hides in its text: a decryption oracle (RFC
// 3218, Section 2.3).
//
// Before the key is used, what everybody can see leads to other errors: ErrNoRecipient, or ErrAlgorithm for a key
// transport that is not supported and for DES.
func (e *EnvelopedData) Decrypt(r *Recipient, o DecryptOptions) (content []byte, err error) {
	if e.Cipher.Legacy() && !o.AllowDES {
		return nil, unsupported("%v is not accepted", e.Cipher)
	}
	info := e.find(r)
	if info == nil {
		return nil, noRecipient()
	}
	if info.err != nil {
		return nil, info.err
	}
	key, ok := r.decryptKey(info, e)
	return e.open(key, ok)
}

// decryptKey returns the content-encryption key, or the preset one if it does not decrypt, after one private key
// operation in either case. ok is 0 for failures that are known; with PKCS #1 v1.5 those of padding are not, not even
// here.
func (r *Recipient) decryptKey(info *recipientInfo, e *EnvelopedData) (key []byte, ok int) {
	preset := r.preset(info.encrypted, e)
	ciphertext := info.encrypted
	ok = 1
	if !r.inRange(ciphertext) {
		// Decrypt something else, to spend the time. All see that the octets are wrong, but it is one path less to reason about.
		ciphertext, ok = make([]byte, len(r.modulus)), 0
		ciphertext[len(ciphertext)-1] = 2
	}
	key = preset
	if info.transport.OAEPHash != 0 {
		opened, err := r.key.Decrypt(rand.Reader, ciphertext, &rsa.OAEPOptions{
			Hash: info.transport.OAEPHash, MGFHash: info.transport.MGFHash, Label: info.label,
		})
		if err != nil || len(opened) != len(preset) {
			return preset, 0
		}
		return opened, ok
	}
	if k, has := r.key.(SessionKeyDecrypter); has {
		if k.DecryptSessionKey(ciphertext, key) != nil {
			ok = 0
		}
		return key, ok
	}
	//lint:ignore SA1019 most SCEP clients know no other
	opened, err := r.key.Decrypt(bytes.NewReader(preset), ciphertext, &rsa.PKCS1v15DecryptOptions{SessionKeyLen: len(preset)})
	if err != nil || len(opened) != len(preset) {
		return preset, 0
	}
	return opened, ok
}

// inRange tells whether octets are what RSA decrypts: of the modulus's length, and smaller.
func (r *Recipient) inRange(ciphertext []byte) bool {
	return len(ciphertext) == len(r.modulus) && bytes.Compare(ciphertext, r.modulus) < 0
}

// preset is HMAC-SHA-256(secret, encryptedKey), cut to the length of the cipher's key: random to everybody else, and the
// same when the same message comes again. (RFC 3218, Section 2.3.2 draws a random one; then a bad message that is sent
// twice is read differently twice, and a good one is not.)
func (r *Recipient) preset(encrypted []byte, e *EnvelopedData) []byte {
	mac := hmac.New(sha256.New, r.secret[:])
	mac.Write(encrypted)
	return mac.Sum(nil)[:e.Cipher.spec().keyLen]
}

// open decrypts the content. ok is 0 if it must fail; it is looked at last.
func (e *EnvelopedData) open(key []byte, ok int) ([]byte, error) {
	block, err := e.Cipher.block(key)
	if err != nil { // all keys have the cipher's length
		return nil, fmt.Errorf("cms: %v: %w", e.Cipher, err)
	}
	size := block.BlockSize()
	n := len(e.ciphertext) / size * size
	ok &= subtle.ConstantTimeEq(int32(n), int32(len(e.ciphertext))) & (1 - subtle.ConstantTimeEq(int32(n), 0))
	if n == 0 {
		return []byte{0}, errDecryption
	}
	content := make([]byte, n)
	cipher.NewCBCDecrypter(block, e.iv).CryptBlocks(content, e.ciphertext[:n])
	pad, good := padding(content[n-size:])
	good &= ok
	length := n - subtle.ConstantTimeSelect(good, pad, 1)
	content = content[:length]
	mask := byte(-good)
	for i := range content {
		content[i] &= mask
	}
	if good == 0 {
		return content, errDecryption
	}
	return content, nil
}

// errDecryption is made before it is needed: making it would take half a microsecond that success does not.
var errDecryption error = fault.Wrap(fault.BadRequest, ErrDecryption, "the message cannot be decrypted")

// padding returns the number of padding octets that the last block ends with (RFC 5652, Section 6.3), and 1 if they are
// right, in constant time.
func padding(last []byte) (n, good int) {
	size := len(last)
	p := last[size-1]
	n = int(p)
	good = subtle.ConstantTimeLessOrEq(1, n) & subtle.ConstantTimeLessOrEq(n, size)
	for i := range size {
		inside := subtle.ConstantTimeLessOrEq(i+1, n)
		good &= (1 - inside) | subtle.ConstantTimeByteEq(last[size-1-i], p)
	}
	return n, good
}

func (c Cipher) block(key []byte) (cipher.Block, error) {
	switch c {
	case DES3CBC:
		return des.NewTripleDESCipher(key)
	case DESCBC:
		return des.NewCipher(key)
	}
	return aes.NewCipher(key)
}
