// Package postgres keeps Certwright's data in PostgreSQL 14 or newer. It fulfils package store's contract for any number
// of replicas on one database.
//
// # How a change is written
//
// Every change is one transaction of two round trips. The first begins it and does the work: rows are inserted, or locked
// and read. The second updates the head row, writes the audit records under the numbers that the head gives them, and
// commits. So the head's lock, which puts all changes of all replicas in one order, is taken last, which rules out
// deadlocks, and is held inside the server only: a replica that stalls between the two round trips holds up nobody.
// Issuance and changes of status are gathered (package groupcommit) and written with one statement for all rows.
//
// When the connection is lost after COMMIT was sent, the store asks the server on a new connection whether that
// transaction still runs, waits until it does not, and then looks for the batch row with the nonce it had drawn.
//
// Changes, look-ups and lists have pools of their own, so that long lists hold up neither a revocation nor an OCSP answer.
package postgres
