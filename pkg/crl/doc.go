// Package crl makes and publishes certificate revocation lists (RFC 5280, Section 5): it decides when one is due,
// which entries it has, its number and its times, records it in the store and serves what the store holds.
//
// # When
//
// A complete list per issuer key, the roots' included, is made on a timer and after every change of a status. Whichever
// replica holds the lease makes it; all of them serve it. Whether a list is behind is never kept anywhere: the store
// numbers its changes, a list says the change it shows, and a status event with a later number means that a new list is
// due. So no revocation is forgotten when the process ends between the revocation and its list.
//
// The first change after a quiet time is published at once. What follows within Config.Coalesce of the last list, or
// within the time that list took, waits and shares one list: a storm of revocations costs a few lists a second, however
// large they are.
//
// # What is served
//
// A list is recorded first and published then (see [Publisher.Latest]). What was published stays in memory, so lists go
// on being served while the database is away, and a clock that cannot be trusted stops signing but not serving.
package crl
