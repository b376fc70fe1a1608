// Package cms reads and writes what SCEP needs of the Cryptographic Message Syntax (RFC 5652): SignedData with one
// signer, the degenerate SignedData that only carries certificates or CRLs, and EnvelopedData for an RSA key (RFC 3370,
// RFC 4055) or a password (RFC 3211). On top of them stand the pkiMessage and the CertRep of RFC 8894.
//
// Everything that is read is a stranger's. Input may be BER, also with indefinite lengths and strings in pieces; it is
// brought into DER first, in one pass whose depth, size and number of elements are bounded ([Limits]), and then read
// strictly: what follows never sees two readings of one message. Certificates and CRLs are kept as octets; only the
// signer's certificate is parsed.
//
// Errors about the input are faults of the kind BadRequest which wrap [ErrMalformed], [ErrAlgorithm], [ErrSignature],
// [ErrNoRecipient] or [ErrDecryption], so that a front-end can choose its protocol's word. Whatever goes wrong once a
// private key has been used is ErrDecryption: one error, one text, one path and one time ([EnvelopedData.Decrypt]).
//
// What is written is DER, but for the order of certificates, which is the caller's.
//
// Nothing here trusts a certificate, judges a key, or knows what a message is allowed to ask: those are for the
// protocol's package. Values are safe for concurrent use once made.
package cms
