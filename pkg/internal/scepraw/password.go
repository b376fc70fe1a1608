package scepraw

import (
	"bytes"
	"crypto"
	"crypto/cipher"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
)

// Object identifiers of password recipients (RFC 8018, RFC 3211).
const (
	PBKDF2  = "1.2.840.113549.1.5.12"
	PWRIKEK = "1.2.840.113549.1.9.16.3.9"
)

// PRFs of PBKDF2, by hash.
var PRFs = map[crypto.Hash]string{
	crypto.MD5: "1.2.840.113549.2.6", crypto.SHA1: "1.2.840.113549.2.7", crypto.SHA256: "1.2.840.113549.2.9",
	crypto.SHA384: "1.2.840.113549.2.10", crypto.SHA512: "1.2.840.113549.2.11",
}

// Password is a PasswordRecipientInfo to make (RFC 5652, Section 6.2.4). Fields left zero get what a good server writes.
type Password struct {
	Text       string
	Key        []byte // the content-encryption key
	Salt       []byte
	Iterations int         // 1000
	PRF        crypto.Hash // SHA1, which is not written
	Cipher     string      // AES128

	// What can be bent.
	KeyLength  []byte              // INTEGER
	Derivation []byte              // [0] element
	Wrapping   []byte              // AlgorithmIdentifier
	EditBlock  func([]byte) []byte // length, check octets, key and padding, before they are encrypted
	Wrapped    []byte
}

func pbkdf2(h crypto.Hash, text string, salt []byte, iterations, n int) []byte {
	var out []byte
	for i := uint32(1); len(out) < n; i++ {
		mac := hmac.New(h.New, []byte(text))
		mac.Write(binary.BigEndian.AppendUint32(bytes.Clone(salt), i))
		u := mac.Sum(nil)
		t := bytes.Clone(u)
		for range iterations - 1 {
			mac.Reset()
			mac.Write(u)
			u = mac.Sum(nil)
			for k := range t {
				t[k] ^= u[k]
			}
		}
		out = append(out, t...)
	}
	return out[:n]
}

// RecipientInfo returns the [3] element.
func (p Password) RecipientInfo() []byte {
	if p.Salt == nil {
		p.Salt = Random(8)
	}
	if p.Iterations == 0 {
		p.Iterations = 1000
	}
	if p.Cipher == "" {
		p.Cipher = AES128
	}
	prf, params := crypto.SHA1, [][]byte{Octets(p.Salt), Int(p.Iterations), p.KeyLength}
	if p.PRF != 0 {
		prf, params = p.PRF, append(params, Sequence(OID(PRFs[p.PRF]), Null()))
	}
	b := block(p.Cipher, pbkdf2(prf, p.Text, p.Salt, p.Iterations, keySizes[p.Cipher]))
	size := b.BlockSize()
	plain := Join([]byte{byte(len(p.Key)), ^p.Key[0], ^p.Key[1], ^p.Key[2]}, p.Key)
	for len(plain)%size != 0 || len(plain) < 2*size {
		plain = append(plain, Random(1)...)
	}
	if p.EditBlock != nil {
		plain = p.EditBlock(plain)
	}
	iv := Random(size)
	once := make([]byte, len(plain))
	cipher.NewCBCEncrypter(b, iv).CryptBlocks(once, plain)
	wrapped := make([]byte, len(plain))
	cipher.NewCBCEncrypter(b, once[len(once)-size:]).CryptBlocks(wrapped, once)
	if p.Wrapped != nil {
		wrapped = p.Wrapped
	}
	if p.Derivation == nil {
		p.Derivation = Context(0, OID(PBKDF2), Sequence(params...))
	}
	if p.Wrapping == nil {
		p.Wrapping = Sequence(OID(PWRIKEK), Sequence(OID(p.Cipher), Octets(iv)))
	}
	return Context(3, Int(0), p.Derivation, p.Wrapping, Octets(wrapped))
}

// OpenWithPassword decrypts an EnvelopedData whose only recipient is a password.
func OpenWithPassword(b []byte, text string) (*Opened, error) {
	body, err := open(b, EnvelopedData)
	if err != nil {
		return nil, err
	}
	list, err := take(body, 2, 0x31, 0x30)
	if err != nil {
		return nil, err
	}
	infos, err := take(list[1].Body, 0xa3)
	if err != nil {
		return nil, err
	}
	info, err := take(infos[0].Body, 2, 0xa0, 0x30, 4)
	if err != nil {
		return nil, err
	}
	derivation, err := take(info[1].Body, 6, 0x30)
	if err != nil {
		return nil, err
	}
	params, err := All(derivation[1].Body)
	if err != nil || !derivation[0].Is(PBKDF2) || len(params) < 2 || params[0].Tag != 4 || params[1].Tag != 2 {
		return nil, errors.New("scepraw: PBKDF2")
	}
	prf := crypto.SHA1
	if last := params[len(params)-1]; last.Tag == 0x30 {
		for h, o := range PRFs {
			if bytes.HasPrefix(last.Body, OID(o)) {
				prf = h
			}
		}
	}
	wrapping, err := take(info[2].Body, 6, 0x30)
	if err != nil {
		return nil, err
	}
	kek, err := take(wrapping[1].Body, 6, 4)
	if err != nil || !wrapping[0].Is(PWRIKEK) {
		return nil, errors.New("scepraw: PWRI-KEK")
	}
	iterations := int(new(big.Int).SetBytes(params[1].Body).Int64())
	wrapped := info[3].Body
	for oid, n := range keySizes {
		if !kek[0].Is(oid) {
			continue
		}
		b := block(oid, pbkdf2(prf, text, params[0].Body, iterations, n))
		size, end := b.BlockSize(), len(wrapped)
		if end%size != 0 || end < 2*size {
			return nil, fmt.Errorf("scepraw: wrapped key of %d octets", end)
		}
		once := make([]byte, end)
		cipher.NewCBCDecrypter(b, wrapped[end-2*size:end-size]).CryptBlocks(once[end-size:], wrapped[end-size:])
		cipher.NewCBCDecrypter(b, once[end-size:]).CryptBlocks(once[:end-size], wrapped[:end-size])
		plain := make([]byte, end)
		cipher.NewCBCDecrypter(b, kek[1].Body).CryptBlocks(plain, once)
		k := int(plain[0])
		if k < 3 || 4+k > end || plain[1]^plain[4] != 0xff || plain[2]^plain[5] != 0xff || plain[3]^plain[6] != 0xff {
			return nil, errors.New("scepraw: the password is wrong")
		}
		return openContent(list[2].Body, plain[4:4+k])
	}
	return nil, fmt.Errorf("scepraw: cipher %x", kek[0].Body)
}
