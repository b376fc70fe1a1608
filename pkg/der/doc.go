// Package der writes the DER of the three structures a certificate authority
// signs all day: TBSCertificate and TBSCertList (RFC 5280) and the
// ResponseData of OCSP (RFC 6960), with the names, extensions and signature
// wrappers they are made of.
//
// The encoders are written by hand and append to a caller's slice
// (AppendX(dst, ...) []byte). Lengths are computed before the first octet is
// written, so nothing is encoded twice or moved; what is the same for every
// certificate of a profile and issuer, or for every answer of an OCSP
// responder, is encoded once in a template ([CertificateTemplate],
// [OCSPTemplate]). A CRL is streamed ([WriteCRL]): memory does not grow with
// the number of its entries.
//
// Everything a function accepts yields valid DER. A value that cannot be
// encoded, or that RFC 5280 forbids in that place, is refused with a
// [*ValueError]; no input makes the package panic. Where raw DER is taken
// (issuer and subject names, public keys, extension values, CertIDs), its
// outer shape and the well-formedness of every nested element are checked,
// and then it is copied byte for byte.
//
// Functions that append return nil with an error, and the spare capacity of
// dst may then have been written to.
//
// What goes into a certificate is not decided here: package profile makes
// names and extensions, package ca chooses serial numbers and keeps the
// signing key. Nothing here reads a clock. Nothing here parses what a client
// sent.
package der
