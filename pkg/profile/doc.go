// Package profile decides what stands in a certificate. A [Config], which an administrator wrote, becomes a [Profile],
// which has been validated once and does not change; [Profile.Contents] takes what a request asks for and returns what
// the certificate will say, or why not (RFC 5280, Section 4).
//
// A request's wishes are copied field by field, each checked: subject attributes, alternative names, an end. Key
// usages, purposes, CA rights and every other extension come from the profile alone. keyCertSign, cRLSign,
// OCSPSigning, id-pkix-ocsp-nocheck, the RA and CA purposes of CMC and anyExtendedKeyUsage exist only in the built-in
// profiles ([Builtins]), which only [NewBuiltin] makes; no request, override or custom profile can name them.
//
// Names are written in one form: DNS names as lower-case A-labels (RFC 5891), addresses of 4 or 16 octets, text in
// NFC without control or format characters. The issuer's name constraints, its life and the reserved names of the
// server's own listeners are kept to.
//
// What a key is worth is for package keys, the request's signature for package csr, who may use which profile for
// package auth; nothing here reads a clock or signs.
package profile
