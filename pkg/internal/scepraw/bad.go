package scepraw

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"slices"
)

// BadEnvelope is a kind of envelope that cannot be decrypted, or holds nothing that can be read. To whoever does not
// have the recipient's key, all of one key transport and length must look the same.
type BadEnvelope struct {
	Name string
	// Edit makes it of an envelope that is good, with a SessionKey for AES-128 and a Plaintext. It draws something new each
	// time. OAEP is set for the kinds whose name begins with it.
	Edit func(e *Envelope, public *rsa.PublicKey)
}

// PKCS1Block encrypts a block of the test's own making: random octets other than 0, but for the first, as filled.
func PKCS1Block(public *rsa.PublicKey, fill func(block []byte)) []byte {
	block := Random(public.Size())
	for i := range block {
		block[i] |= 1
	}
	block[0] = 0
	fill(block)
	return RSA(public, block)
}

// BadEnvelopes returns all kinds.
func BadEnvelopes() []BadEnvelope {
	return []BadEnvelope{
		{"v1.5: padding of type 1", func(e *Envelope, p *rsa.PublicKey) {
			e.EncryptedKey = PKCS1Block(p, func(b []byte) { b[1] = 1; b[len(b)-17] = 0; copy(b[len(b)-16:], e.SessionKey) })
		}},
		{"v1.5: first octet not 0", func(e *Envelope, p *rsa.PublicKey) {
			e.EncryptedKey = PKCS1Block(p, func(b []byte) { b[0], b[1] = 1, 2; b[len(b)-17] = 0; copy(b[len(b)-16:], e.SessionKey) })
		}},
		{"v1.5: no separator", func(e *Envelope, p *rsa.PublicKey) {
			e.EncryptedKey = PKCS1Block(p, func(b []byte) { b[1] = 2 })
		}},
		{"v1.5: separator too early", func(e *Envelope, p *rsa.PublicKey) {
			e.EncryptedKey = PKCS1Block(p, func(b []byte) { b[1], b[5] = 2, 0 })
		}},
		{"v1.5: random block", func(e *Envelope, p *rsa.PublicKey) {
			e.EncryptedKey = PKCS1Block(p, func([]byte) {})
		}},
		{"v1.5: key one octet short", func(e *Envelope, _ *rsa.PublicKey) { e.SessionKey = e.SessionKey[:15] }},
		{"v1.5: key one octet long", func(e *Envelope, _ *rsa.PublicKey) { e.SessionKey = Join(e.SessionKey, []byte{7}) }},
		{"v1.5: no key", func(e *Envelope, p *rsa.PublicKey) {
			e.EncryptedKey = PKCS1Block(p, func(b []byte) { b[1], b[len(b)-1] = 2, 0 })
		}},
		{"v1.5: other key", func(e *Envelope, p *rsa.PublicKey) {
			e.EncryptedKey = PKCS1Block(p, func(b []byte) { b[1], b[len(b)-17] = 2, 0 })
		}},
		{"OAEP: random block", func(e *Envelope, p *rsa.PublicKey) {
			e.OAEP, e.EncryptedKey = crypto.SHA256, PKCS1Block(p, func([]byte) {})
		}},
		{"OAEP: first octet not 0", func(e *Envelope, p *rsa.PublicKey) {
			e.OAEP, e.EncryptedKey = crypto.SHA256, PKCS1Block(p, func(b []byte) { b[0] = 1 })
		}},
		{"OAEP: other label", func(e *Envelope, _ *rsa.PublicKey) {
			e.OAEP, e.Label = crypto.SHA256, []byte("other")
			e.EncryptedKey = mustEncryptOAEP(e, "label")
		}},
		{"OAEP: key one octet short", func(e *Envelope, _ *rsa.PublicKey) { e.OAEP, e.SessionKey = crypto.SHA256, e.SessionKey[:15] }},
		{"OAEP: key one octet long", func(e *Envelope, _ *rsa.PublicKey) {
			e.OAEP, e.SessionKey = crypto.SHA256, Join(e.SessionKey, []byte{7})
		}},
		{"RSA: ciphertext one octet short", func(e *Envelope, p *rsa.PublicKey) { e.EncryptedKey = Random(p.Size() - 1) }},
		{"RSA: ciphertext one octet long", func(e *Envelope, p *rsa.PublicKey) { e.EncryptedKey = Random(p.Size() + 1) }},
		{"RSA: no ciphertext", func(e *Envelope, _ *rsa.PublicKey) { e.EncryptedKey = []byte{} }},
		{"RSA: ciphertext is the modulus", func(e *Envelope, p *rsa.PublicKey) { e.EncryptedKey = p.N.Bytes() }},
		{"RSA: ciphertext of ones", func(e *Envelope, p *rsa.PublicKey) {
			e.EncryptedKey = slices.Repeat([]byte{0xff}, p.Size())
		}},
		{"RSA: ciphertext 0", func(e *Envelope, p *rsa.PublicKey) { e.EncryptedKey = make([]byte, p.Size()) }},
		{"CBC: padding of 0", func(e *Envelope, _ *rsa.PublicKey) { e.Padded = badPadding(e, 0) }},
		{"CBC: padding of 17", func(e *Envelope, _ *rsa.PublicKey) { e.Padded = badPadding(e, 17) }},
		{"CBC: padding of 255", func(e *Envelope, _ *rsa.PublicKey) { e.Padded = badPadding(e, 255) }},
		{"CBC: one octet of the padding wrong", func(e *Envelope, _ *rsa.PublicKey) {
			e.Padded = Pad(Join(e.Plaintext, slices.Repeat([]byte{9}, 16-len(e.Plaintext)%16)), 16)
			e.Padded[len(e.Padded)-16] ^= 1
		}},
		{"CBC: random blocks", func(e *Envelope, _ *rsa.PublicKey) { e.Ciphertext = Random(len(e.Plaintext) / 16 * 16) }},
		{"CBC: not whole blocks", func(e *Envelope, _ *rsa.PublicKey) { e.Ciphertext = Random(len(e.Plaintext)/16*16 + 3) }},
		{"CBC: octets behind the last block", func(e *Envelope, _ *rsa.PublicKey) { e.CiphertextTail = Random(3) }},
		{"CBC: less than a block", func(e *Envelope, _ *rsa.PublicKey) { e.Ciphertext = Random(15) }},
		{"CBC: nothing", func(e *Envelope, _ *rsa.PublicKey) { e.Ciphertext = []byte{} }},
		{"OAEP: garbage, well padded", func(e *Envelope, _ *rsa.PublicKey) {
			e.OAEP, e.Plaintext = crypto.SHA256, Random(len(e.Plaintext))
		}},
		{"v1.5: garbage, well padded", func(e *Envelope, _ *rsa.PublicKey) { e.Plaintext = Random(len(e.Plaintext)) }},
	}
}

func mustEncryptOAEP(e *Envelope, label string) []byte {
	b, err := rsa.EncryptOAEP(crypto.SHA256.New(), rand.Reader, e.To.PublicKey.(*rsa.PublicKey), e.SessionKey, []byte(label))
	if err != nil {
		panic(err)
	}
	return b
}

func badPadding(e *Envelope, last byte) []byte {
	b := Pad(e.Plaintext, 16)
	for i := len(e.Plaintext); i < len(b); i++ {
		b[i] = last
	}
	return b
}
