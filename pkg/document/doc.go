// Package document reads and compares configuration documents: what an administrator writes about a profile or an
// issuer, which the store keeps as JSON, version after version. A document is a struct with JSON tags; what stands in it
// means something to its own package alone.
//
// Reading is strict. A field that does not exist, one that stands twice, and anything behind the object are refused with
// the field's path, as in "validity.max": what is silently ignored in a document about certificates is a hole.
//
// It also makes cells of CSV, in which documents and records leave the server for people.
package document
