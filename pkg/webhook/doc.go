// Package webhook asks another system whether a device may have a certificate, and tells it what became of the request. Such
// a system is a broker of device management, as those of Intune and Jamf, or a program of the owner's.
//
// A message is an [Event], as JSON in the body of a POST. The header Certwright-Signature authenticates it (see [Sign]); TLS
// authenticates the receiver. What the answer may say is an [Answer].
//
// The receiver is trusted to decide, and with nothing else. It is called over TLS 1.2 or 1.3 alone, never through a
// redirect or a proxy, and never at an address that is not public unless it was named: what is checked is the address that
// is dialled, after the name was resolved. Its answers are bounded in size and time. Whatever is not a well-formed answer is
// none, and then nothing is issued.
package webhook
