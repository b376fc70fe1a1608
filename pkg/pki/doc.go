// Package pki holds the nouns of the trade that the rest of Certwright speaks in: serial numbers, revocation reasons,
// issuers and their keys, certificate and CRL records, principals. The names are those of RFC 5280 and RFC 6960.
//
// The package has no behaviour beyond what follows from the standards themselves: what a serial number may look like,
// which change of a certificate's status is allowed. It reads no clock, opens no connection and knows no store.
package pki
