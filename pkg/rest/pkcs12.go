package rest

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"slices"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Lengths of a PKCS #12 password, in characters.
const (
	MinPKCS12Password = 12
	MaxPKCS12Password = 128
)

// How often a password is hashed. The old number is what OpenSSL's own compatible files have; the new one, taken three
// times in a file, stays below the sum at which Windows refuses a file (600,000).
const (
	pkcs12Iterations       = 100_000
	pkcs12CompatIterations = 2048
)

// PKCS12 is a private key with its certificates, to be written as a PKCS #12 file (RFC 7292). Key, Chain and Password
// are required.
type PKCS12 struct {
	Key          crypto.Signer       // *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
	Chain        []*x509.Certificate // the key's own first, then its issuers
	FriendlyName string              // what stores of certificates show; characters beyond the BMP become U+FFFD
	Password     string              // see CheckPKCS12Password
	// Compat encrypts with 3DES and authenticates with SHA-1, for macOS before 12, Windows before Server 2019 and Android
	// up to 13. Else it is AES-256-CBC under PBKDF2 with HMAC-SHA-256, and HMAC-SHA-256.
	Compat bool
}

// CheckPKCS12Password refuses passwords that are too short, or that programs do not agree on how to encode. The error
// does not repeat it.
func CheckPKCS12Password(password string) error {
	for _, c := range []byte(password) {
		if c < ' ' || c > '~' {
			return errors.New("the password has characters other than those of ASCII, which programs encode in different ways")
		}
	}
	if n := len(password); n < MinPKCS12Password || n > MaxPKCS12Password {
		return fmt.Errorf("the password has %d characters, want %d to %d", n, MinPKCS12Password, MaxPKCS12Password)
	}
	return nil
}

// Object identifiers of RFC 7292, RFC 2985, RFC 8018 and RFC 8017.
var (
	oidPKCS7Data          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidPKCS7EncryptedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
	oidShroudedKeyBag     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidCertBag            = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidX509Certificate    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}
	oidFriendlyName       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	oidLocalKeyID         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 21}
	oidPBES2              = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2             = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidHMACWithSHA256     = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidAES256CBC          = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
	oidPBEWithSHA1And3DES = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 3}
	oidDigestSHA1         = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidDigestSHA256       = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

// Encode returns the file's octets.
func (p PKCS12) Encode() ([]byte, error) {
	if p.Key == nil || len(p.Chain) == 0 {
		return nil, errors.New("encoding PKCS #12: no key or no certificate")
	}
	if err := CheckPKCS12Password(p.Password); err != nil {
		return nil, fmt.Errorf("encoding PKCS #12: %w", err)
	}
	if pub, ok := p.Key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(p.Chain[0].PublicKey) {
		return nil, errors.New("encoding PKCS #12: the first certificate is not the key's")
	}
	key, err := x509.MarshalPKCS8PrivateKey(p.Key)
	if err != nil {
		return nil, fmt.Errorf("encoding PKCS #12: %w", err)
	}
	defer clear(key)

	certs, err := build(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for i, c := range p.Chain {
				p.bag(b, oidCertBag, i == 0, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oidX509Certificate)
						b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1OctetString(c.Raw) })
					})
				})
			}
		})
	})
	if err != nil {
		return nil, err
	}
	certAlgorithm, encryptedCerts, err := p.encrypt(certs)
	if err != nil {
		return nil, err
	}
	keyAlgorithm, encryptedKey, err := p.encrypt(key)
	if err != nil {
		return nil, err
	}
	keyBags, err := build(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			p.bag(b, oidShroudedKeyBag, true, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddBytes(keyAlgorithm)
					b.AddASN1OctetString(encryptedKey)
				})
			})
		})
	})
	if err != nil {
		return nil, err
	}
	safe, err := build(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			contentInfo(b, oidPKCS7EncryptedData, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1Int64(0)
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oidPKCS7Data)
						b.AddBytes(certAlgorithm)
						b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(encryptedCerts) })
					})
				})
			})
			contentInfo(b, oidPKCS7Data, func(b *cryptobyte.Builder) { b.AddASN1OctetString(keyBags) })
		})
	})
	if err != nil {
		return nil, err
	}
	return build(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(3)
			contentInfo(b, oidPKCS7Data, func(b *cryptobyte.Builder) { b.AddASN1OctetString(safe) })
			p.mac(b, safe)
		})
	})
}

func build(f func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	f(&b)
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding PKCS #12: %w", err)
	}
	return out, nil
}

func explicit(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

func contentInfo(b *cryptobyte.Builder, kind asn1.ObjectIdentifier, content func(*cryptobyte.Builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(kind)
		b.AddASN1(explicit(0), content)
	})
}

// bag writes a SafeBag. The key's and its certificate's carry what joins and names them (RFC 7292, Section 4.2).
func (p PKCS12) bag(b *cryptobyte.Builder, kind asn1.ObjectIdentifier, own bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(kind)
		b.AddASN1(explicit(0), value)
		if !own {
			return
		}
		id := sha1.Sum(p.Chain[0].Raw) // a name, as OpenSSL forms it
		attributes := [][]byte{attribute(oidLocalKeyID, cbasn1.OCTET_STRING, id[:])}
		if p.FriendlyName != "" {
			attributes = append(attributes, attribute(oidFriendlyName, cbasn1.Tag(30), bmp(p.FriendlyName)))
		}
		slices.SortFunc(attributes, bytes.Compare) // a SET OF in DER
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			for _, a := range attributes {
				b.AddBytes(a)
			}
		})
	})
}

func attribute(kind asn1.ObjectIdentifier, tag cbasn1.Tag, value []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(kind)
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(value) })
		})
	})
	return b.BytesOrPanic()
}

// bmp encodes a BMPString: two octets a character, big endian.
func bmp(s string) []byte {
	var out []byte
	for _, r := range s {
		if r > 0xFFFF || utf16.IsSurrogate(r) {
			r = '\uFFFD'
		}
		out = append(out, byte(r>>8), byte(r))
	}
	return out
}

// encrypt returns the AlgorithmIdentifier with its parameters, and the ciphertext.
func (p PKCS12) encrypt(plain []byte) (algorithm, ciphertext []byte, err error) {
	var block cipher.Block
	var iv []byte
	var b cryptobyte.Builder
	if p.Compat {
		salt := random(8)
		// RFC 7292, Appendix C: the key and the IV come from the password.
		block, err = des.NewTripleDESCipher(deriveBMP(sha1.New, p.Password, salt, pkcs12CompatIterations, 1, 24))
		iv = deriveBMP(sha1.New, p.Password, salt, pkcs12CompatIterations, 2, 8)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidPBEWithSHA1And3DES)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1OctetString(salt)
				b.AddASN1Int64(pkcs12CompatIterations)
			})
		})
	} else {
		salt := random(16)
		iv = random(aes.BlockSize)
		var key []byte
		if key, err = pbkdf2.Key(sha256.New, p.Password, salt, pkcs12Iterations, 32); err == nil {
			block, err = aes.NewCipher(key)
		}
		// RFC 8018, Appendix A.4.
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidPBES2)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidPBKDF2)
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1OctetString(salt)
						b.AddASN1Int64(pkcs12Iterations)
						algorithmWithNull(b, oidHMACWithSHA256)
					})
				})
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidAES256CBC)
					b.AddASN1OctetString(iv)
				})
			})
		})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("encrypting PKCS #12: %w", err)
	}
	if algorithm, err = b.Bytes(); err != nil {
		return nil, nil, fmt.Errorf("encrypting PKCS #12: %w", err)
	}
	pad := block.BlockSize() - len(plain)%block.BlockSize()
	ciphertext = append(slices.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(ciphertext, ciphertext)
	return algorithm, ciphertext, nil
}

// mac writes MacData (RFC 7292, Section 4).
func (p PKCS12) mac(b *cryptobyte.Builder, safe []byte) {
	h, oid, iterations := sha256.New, oidDigestSHA256, pkcs12Iterations
	if p.Compat {
		h, oid, iterations = sha1.New, oidDigestSHA1, pkcs12CompatIterations
	}
	salt := random(16)
	m := hmac.New(h, deriveBMP(h, p.Password, salt, iterations, 3, h().Size()))
	m.Write(safe)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			algorithmWithNull(b, oid)
			b.AddASN1OctetString(m.Sum(nil))
		})
		b.AddASN1OctetString(salt)
		b.AddASN1Int64(int64(iterations))
	})
}

func algorithmWithNull(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1NULL()
	})
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// deriveBMP is the key derivation of RFC 7292, Appendix B.2, for hashes with blocks of 64 octets. id is 1 for a key, 2
// for an IV, 3 for a MAC key. The password goes in as a BMPString that ends in zero.
func deriveBMP(newHash func() hash.Hash, password string, salt []byte, iterations int, id byte, size int) []byte {
	const v = 64
	h := newHash()
	fill := func(s []byte) []byte {
		n := (len(s) + v - 1) / v * v
		return bytes.Repeat(s, n/len(s)+1)[:n]
	}
	diversifier := bytes.Repeat([]byte{id}, v)
	in := append(fill(salt), fill(append(bmp(password), 0, 0))...)
	var out []byte
	for {
		h.Reset()
		h.Write(diversifier)
		h.Write(in)
		sum := h.Sum(nil)
		for range iterations - 1 {
			h.Reset()
			h.Write(sum)
			sum = h.Sum(sum[:0])
		}
		if out = append(out, sum...); len(out) >= size {
			return out[:size]
		}
		// Step 6C: every block of v octets becomes (block + B + 1) mod 2^(8v).
		add := new(big.Int).SetBytes(bytes.Repeat(sum, v/len(sum)+1)[:v])
		add.Add(add, big.NewInt(1))
		for i := 0; i < len(in); i += v {
			n := new(big.Int).SetBytes(in[i : i+v])
			b := n.Add(n, add).FillBytes(make([]byte, v+1))
			copy(in[i:], b[1:])
		}
	}
}
