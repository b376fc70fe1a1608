package cms

import (
	"crypto"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certwright/certwright/pkg/keys"
)

// minRSABits is the size of the smallest key that signs a message, or that one is encrypted to. Which keys get
// certificates is not decided here.
const minRSABits = 1024

// Encryption is how to encrypt a message: for an answer, the request's own (see [EnvelopedData]).
type Encryption struct {
	// Cipher encrypts the content; the zero value is AES-128-CBC.
	Cipher Cipher
	// KeyTransport encrypts the key; the zero value is PKCS #1 v1.5.
	KeyTransport KeyTransport
}

// Encrypt returns a ContentInfo with EnvelopedData in DER for one recipient, named by issuer and serial number (RFC
// 5652, Section 6.2.1). Its key is RSA, of at least 1024 bits and at most 8192; any other is an error that wraps
// ErrAlgorithm. Legacy ciphers are written too: who allows them decides that.
//
// RSAES-OAEP leaves room for a key that is shorter than the modulus by two digests. Where the one asked for leaves too
// little (SHA-512 and 1024 bits) the longest is taken that leaves enough: who knows one knows the others.
func Encrypt(content []byte, to *x509.Certificate, o Encryption) ([]byte, error) {
	if to == nil {
		return nil, errors.New("cms: no certificate to encrypt to")
	}
	if o.Cipher == 0 {
		o.Cipher = AES128CBC
	}
	if !o.Cipher.valid() {
		return nil, fmt.Errorf("cms: %v: %w", o.Cipher, ErrAlgorithm)
	}
	public, ok := to.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, unsupported("the recipient's key cannot encrypt")
	}
	if bits := public.N.BitLen(); bits < minRSABits || bits > keys.MaxRSABits {
		return nil, unsupported("the recipient's RSA key has %d bits", bits)
	}
	sid, err := encodeIssuerAndSerial(to.Raw)
	if err != nil {
		return nil, err
	}
	key := newKey(o.Cipher)
	encrypted, algorithm, err := o.KeyTransport.fitting(public, len(key)).encrypt(public, key)
	if err != nil {
		return nil, err
	}
	info := sequence(integer(0), sid, algorithm, octetString(encrypted))
	return encodeEnveloped(0, info, o.Cipher, key, content)
}

// fitting returns k, or with OAEP the nearest to it with which public can encrypt a key of so many octets (RFC 8017,
// Section 7.1.1). SHA-256 fits always.
func (k KeyTransport) fitting(public *rsa.PublicKey, keyLen int) KeyTransport {
	for _, shorter := range []crypto.Hash{crypto.SHA384, crypto.SHA256} {
		if k.OAEPHash == 0 || keyLen <= public.Size()-2*k.OAEPHash.Size()-2 {
			break
		}
		if k.MGFHash == k.OAEPHash {
			k.MGFHash = shorter
		}
		k.OAEPHash = shorter
	}
	return k
}

// encrypt returns the encrypted key and the AlgorithmIdentifier that goes with it.
func (k KeyTransport) encrypt(public *rsa.PublicKey, key []byte) (encrypted, identifier []byte, err error) {
	if k.OAEPHash == 0 {
		//lint:ignore SA1019 most SCEP clients know no other
		if encrypted, err = rsa.EncryptPKCS1v15(rand.Reader, public, key); err != nil {
			return nil, nil, unsupported("the recipient's RSA key does not encrypt: %v", err)
		}
		return encrypted, sequence(oidRSA.encode(), null), nil
	}
	mgf := k.MGFHash
	if mgf == 0 {
		mgf = k.OAEPHash
	}
	hashOID, ok := digestOID(k.OAEPHash)
	mgfOID, mgfOK := digestOID(mgf)
	if !ok || !mgfOK {
		return nil, nil, fmt.Errorf("cms: %v: %w", k, ErrAlgorithm)
	}
	encrypted, err = rsa.EncryptOAEPWithOptions(rand.Reader, public, key, &rsa.OAEPOptions{Hash: k.OAEPHash, MGFHash: mgf})
	if err != nil {
		return nil, nil, unsupported("the recipient's RSA key does not encrypt: %v", err)
	}
	// RFC 4055, Section 4.1: DER leaves the defaults, SHA-1, out; parameters of the hashes are NULL.
	var params [][]byte
	if k.OAEPHash != crypto.SHA1 {
		params = append(params, contextTag(0, sequence(hashOID.encode(), null)))
	}
	if mgf != crypto.SHA1 {
		params = append(params, contextTag(1, sequence(oidMGF1.encode(), sequence(mgfOID.encode(), null))))
	}
	return encrypted, sequence(oidOAEP.encode(), sequence(params...)), nil
}

func newKey(c Cipher) []byte {
	key := make([]byte, c.spec().keyLen)
	_, _ = rand.Read(key)
	return key
}

// identifier returns the AlgorithmIdentifier of the cipher with its IV.
func (c Cipher) identifier(iv []byte) []byte {
	return sequence(c.spec().id.encode(), octetString(iv))
}

// encodeEnveloped encrypts content under key for one encoded RecipientInfo.
func encodeEnveloped(version int, recipient []byte, c Cipher, key, content []byte) ([]byte, error) {
	block, err := c.block(key)
	if err != nil {
		return nil, fmt.Errorf("cms: %v: %w", c, err)
	}
	size := block.BlockSize()
	iv := make([]byte, size)
	_, _ = rand.Read(iv)
	pad := size - len(content)%size
	padded := make([]byte, len(content)+pad)
	copy(padded, content)
	for i := len(content); i < len(padded); i++ {
		padded[i] = byte(pad)
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(padded, padded)
	return encodeContentInfo(oidEnvelopedData, sequence(
		integer(version),
		wrap(tagSet, recipient),
		sequence(oidData.encode(), c.identifier(iv), wrap(0x80, padded)),
	)), nil
}
