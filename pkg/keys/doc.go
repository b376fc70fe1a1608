// Package keys holds private keys: it makes them, checks the public halves
// of foreign ones, seals them for the store and opens them behind
// [crypto.Signer] and [crypto.Decrypter].
//
// # Sealing
//
// A private key leaves this package only sealed. [Seal] encrypts its PKCS#8
// form (RFC 5958) with AES-256-GCM under a fresh random data key, and wraps
// the data key with AES-256-GCM under the key encryption key, [KEK]. The KEK
// comes from a passphrase (argon2id, RFC 9106), from a file of 32 random
// octets, or from a systemd credential; it is never in the store. What the
// store does keep is [KEKInfo], which says how the KEK is made and tells a
// wrong KEK from a damaged key.
//
// The layout of a sealed key, all lengths in octets:
//
//	magic "CWSK"            4  \
//	version 1               1   |  prefix: additional data
//	length of purpose       1   |  of the payload
//	purpose                 n   |
//	SHA-256 of the SPKI    32  /
//	KEK id                  8      header = prefix + KEK id: additional
//	                               data of the wrapped data key
//	wrapped data key       60      nonce 12, key 32, tag 16
//	payload             28 + m     nonce 12, PKCS#8 m, tag 16
//
// The key id is the first eight octets of the SPKI hash, so it stands in the
// header without being written twice. The payload does not repeat the KEK id
// in its additional data, so that [Rewrap] replaces the KEK id and the
// wrapped data key and leaves the payload as it is; the payload is bound to
// the KEK id all the same, through its data key, which opens only under the
// whole header.
//
// # Limits
//
// Buffers this package owns (data keys, PKCS#8, secrets of a KEK) are cleared
// after use. The copies that crypto/x509 makes while it encodes and decodes,
// and the opened key itself, are out of reach: Go offers no way to clear
// them. Core dumps and swap are the concern of the process, not of this
// package, and so is the list of keys that were blocked or are our own.
package keys
