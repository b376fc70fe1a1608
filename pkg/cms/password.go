package cms

import (
	"crypto"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of PBKDF2 (RFC 8018, Section 5.2).
const (
	defaultIterations    = 10_000
	defaultMaxIterations = 1_000_000
	maxSaltBytes         = 256
)

// passwordInfo is how a PasswordRecipientInfo makes its key-encryption key.
type passwordInfo struct {
	salt       []byte
	iterations int
	prf        crypto.Hash
	kek        Cipher
	iv         []byte
}

// parsePasswordRecipient reads a PasswordRecipientInfo (RFC 5652, Section 6.2.4) whose key is derived by PBKDF2 and
// wrapped by PWRI-KEK (RFC 3211, Section 2.3.1). Other algorithms are an error for whoever chooses this recipient.
func parsePasswordRecipient(body cryptobyte.String) (r recipientInfo, err error) {
	r.isPassword = true
	var version int
	var present bool
	if !body.ReadASN1Integer(&version) {
		return r, malformed("a PasswordRecipientInfo cannot be read")
	}
	present = body.PeekASN1Tag(tag0Constructed)
	var derivation algorithm
	if present {
		var ok bool
		if derivation, ok = readAlgorithm(&body, tag0Constructed); !ok {
			return r, malformed("keyDerivationAlgorithm cannot be read")
		}
	}
	wrapping, ok := readAlgorithm(&body, cbasn1.SEQUENCE)
	if !ok {
		return r, malformed("a PasswordRecipientInfo's keyEncryptionAlgorithm cannot be read")
	}
	var encrypted cryptobyte.String
	if !body.ReadASN1(&encrypted, cbasn1.OCTET_STRING) || !body.Empty() {
		return r, malformed("a PasswordRecipientInfo's encryptedKey cannot be read")
	}
	r.encrypted = encrypted
	r.password, r.err = parsePasswordAlgorithms(derivation, wrapping)
	return r, nil
}

func parsePasswordAlgorithms(derivation, wrapping algorithm) (*passwordInfo, error) {
	p := &passwordInfo{prf: crypto.SHA1} // the default
	if derivation.id != oidPBKDF2 {
		return nil, unsupported("key derivation algorithm %v is not supported", derivation.id)
	}
	var params, salt cryptobyte.String
	if !derivation.params.ReadASN1(&params, cbasn1.SEQUENCE) || !params.ReadASN1(&salt, cbasn1.OCTET_STRING) ||
		len(salt) > maxSaltBytes || !params.ReadASN1Integer(&p.iterations) || p.iterations < 1 {
		return nil, unsupported("PBKDF2 parameters are not supported")
	}
	p.salt = salt
	keyLength := 0
	if params.PeekASN1Tag(cbasn1.INTEGER) && (!params.ReadASN1Integer(&keyLength) || keyLength < 1) {
		return nil, unsupported("PBKDF2 parameters are not supported")
	}
	if !params.Empty() {
		prf, ok := readAlgorithm(&params, cbasn1.SEQUENCE)
		p.prf = prfOf(prf.id)
		if !ok || !params.Empty() || !prf.hasNoParams() || p.prf == 0 {
			return nil, unsupported("the pseudo-random function of PBKDF2 is not supported")
		}
	}
	if wrapping.id != oidPWRIKEK {
		return nil, unsupported("key encryption algorithm %v is not supported", wrapping.id)
	}
	kek, ok := readAlgorithm(&wrapping.params, cbasn1.SEQUENCE)
	if !ok {
		return nil, unsupported("PWRI-KEK parameters are not supported")
	}
	if p.kek, ok = cipherOf(kek.id); !ok || p.kek.Legacy() {
		return nil, unsupported("PWRI-KEK cipher %v is not supported", kek.id)
	}
	if p.iv, ok = readIV(kek.params, p.kek); !ok || keyLength != 0 && keyLength != p.kek.spec().keyLen {
		return nil, unsupported("PWRI-KEK parameters are not supported")
	}
	return p, nil
}

var prfs = []struct {
	id   oid
	hash crypto.Hash
}{
	{oidHMACWithSHA1, crypto.SHA1},
	{oidHMACWithSHA256, crypto.SHA256},
	{oidHMACWithSHA384, crypto.SHA384},
	{oidHMACWithSHA512, crypto.SHA512},
}

func prfOf(id oid) crypto.Hash {
	for _, p := range prfs {
		if p.id == id {
			return p.hash
		}
	}
	return 0
}

// HasPassword tells whether the message is encrypted to a password.
func (e *EnvelopedData) HasPassword() bool { return e.findPassword() != nil }

func (e *EnvelopedData) findPassword() *recipientInfo {
	for i := range e.recipients {
		if e.recipients[i].isPassword {
			return &e.recipients[i]
		}
	}
	return nil
}

// PasswordOptions say how to decrypt with a password.
type PasswordOptions struct {
	DecryptOptions
	// MaxIterations is the greatest iteration count of PBKDF2 to work through; 0 is one million. The sender chooses the
	// count and the receiver pays: half a second for a million.
	MaxIterations int
}

// DecryptWithPassword returns the content that is encrypted to a password (RFC 3211). It fails as
// [EnvelopedData.Decrypt] does: ErrNoRecipient or ErrAlgorithm for what everybody can see, else one ErrDecryption,
// content that is not nil, and no telling a wrong password from a damaged message.
func (e *EnvelopedData) DecryptWithPassword(password []byte, o PasswordOptions) (content []byte, err error) {
	if e.Cipher.Legacy() && !o.AllowDES {
		return nil, unsupported("%v is not accepted", e.Cipher)
	}
	info := e.findPassword()
	if info == nil {
		return nil, noRecipient()
	}
	if info.err != nil {
		return nil, info.err
	}
	p := info.password
	limit := o.MaxIterations
	if limit <= 0 {
		limit = defaultMaxIterations
	}
	if p.iterations > limit {
		return nil, unsupported("PBKDF2 with more than %d iterations is not accepted", limit)
	}
	kek, err := p.derive(password)
	if err != nil {
		return nil, err
	}
	key, ok := p.unwrap(kek, info.encrypted, e.Cipher.spec().keyLen)
	return e.open(key, ok)
}

func (p *passwordInfo) derive(password []byte) (cipher.Block, error) {
	kek, err := pbkdf2.Key(p.prf.New, string(password), p.salt, p.iterations, p.kek.spec().keyLen)
	if err != nil {
		return nil, fmt.Errorf("cms: deriving a key from a password: %w", err)
	}
	return p.kek.block(kek)
}

// unwrap undoes wrapKey (RFC 3211, Section 2.3.2). A key that does not unwrap is replaced, with ok 0.
func (p *passwordInfo) unwrap(kek cipher.Block, wrapped []byte, keyLen int) (key []byte, ok int) {
	size := kek.BlockSize()
	n := len(wrapped)
	if n%size != 0 || n < 2*size || n < 4+keyLen {
		return make([]byte, keyLen), 0
	}
	// The last block was encrypted with the one before it as IV; it is the IV of the first pass.
	plain := make([]byte, n)
	cipher.NewCBCDecrypter(kek, wrapped[n-2*size:n-size]).CryptBlocks(plain[n-size:], wrapped[n-size:])
	cipher.NewCBCDecrypter(kek, plain[n-size:]).CryptBlocks(plain[:n-size], wrapped[:n-size])
	cipher.NewCBCDecrypter(kek, p.iv).CryptBlocks(plain, plain)
	ok = subtle.ConstantTimeEq(int32(plain[0]), int32(keyLen))
	for i := range 3 {
		ok &= subtle.ConstantTimeByteEq(plain[1+i], ^plain[4+i])
	}
	return plain[4 : 4+keyLen], ok
}

// wrapKey encrypts a key (RFC 3211, Section 2.3.1): length, check octets, key and random padding, at least two blocks,
// twice in CBC mode.
func (p *passwordInfo) wrapKey(kek cipher.Block, key []byte) []byte {
	size := kek.BlockSize()
	n := max((4+len(key)+size-1)/size, 2) * size
	b := make([]byte, n)
	_, _ = rand.Read(b)
	b[0] = byte(len(key))
	for i := range 3 {
		b[1+i] = ^key[i]
	}
	copy(b[4:], key)
	cipher.NewCBCEncrypter(kek, p.iv).CryptBlocks(b, b)
	cipher.NewCBCEncrypter(kek, b[n-size:]).CryptBlocks(b, b)
	return b
}

// PasswordEncryption says how to encrypt to a password. Zero fields have defaults.
type PasswordEncryption struct {
	// Cipher encrypts the content, and the key to it. Default AES-128-CBC. Single DES is refused.
	Cipher Cipher
	// PRF is the hash of PBKDF2's HMAC: SHA-1, SHA-256, SHA-384 or SHA-512. Default SHA-256.
	PRF crypto.Hash
	// Iterations of PBKDF2. Default 10,000: the challenges of this server have 128 bits, which no stretching makes safer,
	// and devices are slow. Take 600,000 for what people choose.
	Iterations int
}

// EncryptToPassword returns a ContentInfo with EnvelopedData for one PasswordRecipientInfo, with PBKDF2 and PWRI-KEK
// (RFC 8894, Section 3.1; RFC 3211). An empty password is an error.
func EncryptToPassword(content, password []byte, o PasswordEncryption) ([]byte, error) {
	if len(password) == 0 {
		return nil, errors.New("cms: no password to encrypt to")
	}
	if o.Cipher == 0 {
		o.Cipher = AES128CBC
	}
	if o.PRF == 0 {
		o.PRF = crypto.SHA256
	}
	if o.Iterations == 0 {
		o.Iterations = defaultIterations
	}
	var prf oid
	for _, p := range prfs {
		if p.hash == o.PRF {
			prf = p.id
		}
	}
	if !o.Cipher.valid() || o.Cipher.Legacy() || prf == "" || o.Iterations < 1 {
		return nil, errors.New("cms: cipher, PRF or iterations are not supported")
	}
	p := &passwordInfo{salt: make([]byte, 16), iterations: o.Iterations, prf: o.PRF, kek: o.Cipher, iv: make([]byte, o.Cipher.spec().blkLen)}
	_, _ = rand.Read(p.salt)
	_, _ = rand.Read(p.iv)
	kek, err := p.derive(password)
	if err != nil {
		return nil, err
	}
	key := newKey(o.Cipher)
	pbkdf2Params := [][]byte{octetString(p.salt), integer(p.iterations)}
	if o.PRF != crypto.SHA1 { // DER leaves defaults out
		pbkdf2Params = append(pbkdf2Params, sequence(prf.encode(), null))
	}
	info := contextTag(3,
		integer(0),
		contextTag(0, oidPBKDF2.encode(), sequence(pbkdf2Params...)),
		sequence(oidPWRIKEK.encode(), o.Cipher.identifier(p.iv)),
		octetString(p.wrapKey(kek, key)),
	)
	return encodeEnveloped(3, info, o.Cipher, key, content) // RFC 5652, Section 6.1: pwri makes version 3
}
