// Package sqlite is the store for one machine: one file, one process, nothing to install. It fulfils the contract of
// package store.
//
// One connection writes. Everything that writes goes through package groupcommit, so that what waits at the same time
// shares one transaction, one change number and one fsync; an operation that is refused leaves no trace and fails no
// other. A pool of connections reads. In WAL mode neither waits for the other, and synchronous=FULL makes what has been
// committed survive a loss of power.
//
// A lock on a file beside the database keeps a second process out. The database's own locks would let it in, and two
// servers that sign with one CA key without seeing each other is what must never happen.
package sqlite
