// Package scepraw makes and reads SCEP messages (RFC 8894) for tests, octet by octet. It shares nothing with pkg/cms,
// pkg/der or pkg/scep, so that a mistake there is not made here too, and every field of what it writes can be bent: left
// out, doubled, of the wrong type, in BER, signed or encrypted wrongly.
//
// What goes wrong in here is a mistake of a test, so it panics.
package scepraw
