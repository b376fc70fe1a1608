// Package scep is the front-end for devices that enroll by the Simple Certificate Enrolment Protocol (RFC 8894). It
// decodes, asks and encodes: who may have a certificate is for package enrollment, what is in it for packages ca and
// profile, how messages are built for package cms.
//
// # What a stranger learns
//
// Everything that can be wrong with an envelope once a private key has been used (padding, key, cipher, a CSR that is
// none, its signature, its challenge) is one failure: one failInfo, one text, the same headers, and an answer that
// leaves at the next tick of a clock, not when the work is done ([replyQuantum]). The log knows which it was.
//
// # What a client is told
//
// A refusal is a CertRep with FAILURE and HTTP 200 (Section 3.3.2.2). HTTP 4xx is for what is no message that could be
// answered. No input leads to a 5xx: those say that the store is away, or that we are broken.
package scep
