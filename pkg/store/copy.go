package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
)

// ErrNotInUse says that the store is fenced, was left, or is being filled: verbs that write are refused.
var ErrNotInUse = errors.New("the store is not in use")

// Movable is a store that can be copied into another, and be filled by such a copy. Package transfer does it.
type Movable interface {
	Store
	Exporter
	Importer
}

// Use says what a store may be used for. The zero value is the usual one.
type Use int

// A store's uses. Verbs that write work on a store in use alone.
const (
	InUse   Use = 0
	Fenced  Use = 1 // for a copy that has begun; Unfence takes it back
	Filling Use = 2 // by a copy that is not finished
	Left    Use = 3 // the copy of it is the one in use now
)

// String returns "in use", "fenced", "being filled" or "left".
func (u Use) String() string {
	return [...]string{"in use", "fenced", "being filled", "left"}[min(max(u, 0), 3)]
}

// CopyID names one copy, so that a copy that was broken off is gone on with and not mixed with another.
type CopyID [16]byte

// String returns hexadecimal digits.
func (c CopyID) String() string { return hex.EncodeToString(c[:]) }

// State tells what a store may be used for, and why.
type State struct {
	Use   Use
	Copy  CopyID    // the copy that fenced it, fills it or has filled it; zero: none
	Peer  string    // the other store of that copy, without a password
	Since time.Time // zero: always
}

// Err returns why a store in this state cannot be opened for use: a Conflict that wraps ErrNotInUse; nil when it can.
func (s State) Err() error {
	since := s.Since.Format(time.RFC3339)
	switch s.Use {
	case InUse:
		return nil
	case Fenced:
		return fault.Wrap(fault.Conflict, ErrNotInUse, "this store has been fenced since %s: it is being copied to %s", since, s.Peer).
			WithHint("finish the copy by running the same «certwright store copy» again, or give it up with «certwright store unfence»")
	case Filling:
		return fault.Wrap(fault.Conflict, ErrNotInUse, "this store is being filled with a copy of %s, begun on %s and not finished", s.Peer, since).
			WithHint("finish it by running the same «certwright store copy» again")
	case Left:
		return fault.Wrap(fault.Conflict, ErrNotInUse, "this store was copied to %s on %s, which is the one in use", s.Peer, since).
			WithHint("serve that one; two live stores of one CA would contradict each other")
	}
	return fault.Wrap(fault.Conflict, ErrNotInUse, "the store is in a state that this program does not know (%d)", s.Use)
}

// Exporter takes a store out of use and hands out its rows.
type Exporter interface {
	// State tells what the store may be used for.
	State(ctx context.Context) (State, error)
	// Fence takes a store in use out of use, for a copy to peer: from its return on nothing is written, by this process
	// or by any other replica. Its record is the last change. ErrNotInUse when the store is out of use already.
	Fence(ctx context.Context, id CopyID, peer string, at time.Time, record audit.Record) error
	// Unfence puts a store that was fenced or left back into use. Conflict when it is neither.
	Unfence(ctx context.Context, at time.Time, record audit.Record) error
	// Leave notes that the copy of a fenced store is finished. Doing it again does no harm.
	Leave(ctx context.Context, id CopyID, at time.Time) error
	// ExportRows returns the rows of a table behind the one with the key after, or from the first when after is nil, in
	// the order of keys, at most limit. Only of a store that is out of use do several calls give one state.
	ExportRows(ctx context.Context, t Table, after Row, limit int) ([]Row, error)
	// CountRows counts the rows of a table.
	CountRows(ctx context.Context, t Table) (int64, error)
	// LastKey returns the highest key of a table, nil when it is empty.
	LastKey(ctx context.Context, t Table) (Row, error)
}

// Importer is filled with the rows of an Exporter. The caller must own the schema.
type Importer interface {
	// BeginImport takes an empty store out of use, to be filled. When this copy is filling it already, it is left as it
	// is; what another copy has left unfinished is thrown away. Conflict with ErrNotEmpty for any other store.
	BeginImport(ctx context.Context, id CopyID, peer string, at time.Time) error
	// ImportRows writes rows, all or none. They must be those that follow LastKey in the order of keys, and tables must
	// be filled in the order of Tables. ErrStale when another copy is filling the store.
	ImportRows(ctx context.Context, id CopyID, t Table, rows []Row) error
	// FinishImport sets the head and puts the store into use. The caller has made sure that everything is there.
	FinishImport(ctx context.Context, id CopyID, head Head, at time.Time) error
}

// Kind is what a column holds.
type Kind int

// The kinds, and the Go types of their values in a Row.
const (
	Int    Kind = iota // int64
	Bool               // bool
	Text               // string
	Texts              // []string, never nil
	Octets             // []byte
	Time               // time.Time, UTC, microseconds
)

// Column is a column of a table. Its name is the same in both stores' schemas.
type Column struct {
	Name string
	Kind Kind
	Null bool // the value may be nil
}

// Table is a table that is copied: what it holds, whatever a store keeps beside that for itself, such as an index.
type Table struct {
	Name    string
	Columns []Column
	Key     []string // columns whose values, in this order, are unique
	Large   bool     // its rows may be megabytes each
}

// Row has a value for each column of its table, or of its key. NULL is nil.
type Row []any

// KeyOf returns the key of a row.
func (t Table) KeyOf(r Row) Row {
	key := make(Row, len(t.Key))
	for i, name := range t.Key {
		key[i] = r[t.Index(name)]
	}
	return key
}

// Index returns the place of a column in a row. It panics when there is none.
func (t Table) Index(column string) int {
	for i, c := range t.Columns {
		if c.Name == column {
			return i
		}
	}
	panic(fmt.Sprintf("store: table %s has no column %s", t.Name, column))
}

// KeyColumns returns the columns of the key.
func (t Table) KeyColumns() []Column {
	cs := make([]Column, len(t.Key))
	for i, name := range t.Key {
		cs[i] = t.Columns[t.Index(name)]
	}
	return cs
}

// Tables returns the tables of a store, those that others refer to first. Leases are not among them, and neither is the
// head, which FinishImport takes.
func Tables() []Table {
	column := func(k Kind, null bool) func(string) Column {
		return func(name string) Column { return Column{name, k, null} }
	}
	integer, boolean, text, texts := column(Int, false), column(Bool, false), column(Text, false), column(Texts, false)
	octets, moment := column(Octets, false), column(Time, false)
	orInteger, orOctets, orMoment := column(Int, true), column(Octets, true), column(Time, true)
	return []Table{
		{Name: "issuer", Key: []string{"id"}, Columns: []Column{
			integer("id"), text("name"), boolean("root"), moment("created"),
		}},
		{Name: "issuer_key", Key: []string{"id"}, Columns: []Column{
			integer("id"), integer("issuer_id"), text("key_id"), boolean("current"), moment("created"),
		}},
		{Name: "issuer_certificate", Key: []string{"id"}, Columns: []Column{
			integer("id"), integer("issuer_key_id"), orInteger("parent_key_id"), octets("fingerprint"), boolean("current"), octets("der"),
		}},
		{Name: "sealed_key", Key: []string{"issuer_key_id"}, Columns: []Column{integer("issuer_key_id"), octets("sealed")}},
		{Name: "issuer_settings", Key: []string{"issuer_id", "version"}, Columns: []Column{
			integer("issuer_id"), integer("version"), octets("config"), moment("created_at"), text("created_by"),
		}},
		{Name: "crl_address", Key: []string{"issuer_key_id", "crl_set", "url"}, Columns: []Column{
			integer("issuer_key_id"), text("crl_set"), text("url"), moment("recorded_at"), moment("until"), orMoment("listed_at"),
		}},
		{Name: "kek", Key: []string{"id"}, Columns: []Column{integer("id"), octets("info")}},
		{Name: "blocked_key", Key: []string{"spki_hash"}, Columns: []Column{
			octets("spki_hash"), boolean("own"), boolean("compromised"), orMoment("blocked_at"), text("blocked_by"), text("campaign"),
		}},
		{Name: "profile", Key: []string{"name", "version"}, Columns: []Column{
			text("name"), integer("version"), octets("config"), boolean("builtin"), moment("created_at"), text("created_by"),
		}},
		{Name: "api_token", Key: []string{"id"}, Columns: []Column{
			text("id"), text("name"), octets("hash"), integer("role"), texts("issuers"), texts("profiles"), texts("names"), integer("rate"), moment("created_at"), text("created_by"),
			orMoment("expires_at"), orMoment("revoked_at"),
		}},
		{Name: "certificate", Key: []string{"issued_at", "serial", "issuer_id"}, Columns: []Column{
			moment("issued_at"), octets("serial"), integer("issuer_id"), integer("issuer_key_id"), moment("not_before"), moment("not_after"),
			integer("profile_version"), integer("crl_shard"), octets("fingerprint"), octets("spki_hash"), orOctets("replaces"),
			text("subject"), texts("sans"), text("profile"), text("requester"), text("protocol"), text("device"), text("source"),
			text("transaction_id"), text("crl_scope"), orOctets("der"),
		}},
		{Name: "idempotency", Key: []string{"id"}, Columns: []Column{
			octets("id"), octets("request"), octets("fingerprint"), texts("warnings"), moment("expires_at"),
		}},
		{Name: "revocation", Key: []string{"issuer_key_id", "serial"}, Columns: []Column{
			integer("issuer_key_id"), octets("serial"), integer("issuer_id"), integer("status"), integer("reason"), moment("revoked_at"),
			orMoment("invalidity_date"), moment("not_after"), integer("change"), orMoment("first_crl_at"), orMoment("first_ocsp_at"),
			text("crl_scope"),
		}},
		{Name: "status_event", Key: []string{"change", "ord"}, Columns: []Column{
			integer("change"), integer("ord"), integer("issuer_key_id"), octets("serial"), integer("status"), integer("reason"),
			orMoment("revoked_at"), orMoment("invalidity_date"), moment("not_after"), text("crl_scope"),
		}},
		{Name: "campaign", Key: []string{"id"}, Columns: []Column{
			text("id"), integer("state"), text("selection"), text("query"), orOctets("spki_hash"), integer("reason"), orMoment("invalidity_date"),
			boolean("change_reasons"), integer("expected"), moment("created_at"), text("created_by"), text("role"), text("source"), text("request_id"),
			integer("revoked"), integer("skipped"), integer("step"), orMoment("at_issued"), octets("at_serial"), integer("at_issuer"),
			boolean("look_back"), moment("changed_at"), orMoment("ended_at"),
		}},
		{Name: "crl", Key: []string{"issuer_key_id", "scope", "number"}, Large: true, Columns: []Column{
			integer("issuer_key_id"), text("scope"), integer("number"), integer("shard"), moment("this_update"), moment("next_update"),
			boolean("scheduled"), integer("change"), integer("entries"), moment("created_at"), octets("der"), orOctets("parts"), boolean("base"),
		}},
		{Name: "crl_part", Key: []string{"issuer_key_id", "scope", "hash"}, Large: true, Columns: []Column{
			integer("issuer_key_id"), text("scope"), octets("hash"), octets("data"),
		}},
		{Name: "sealed_secret", Key: []string{"name"}, Columns: []Column{text("name"), octets("sealed")}},
		{Name: "ra_certificate", Key: []string{"issuer_id", "number"}, Columns: []Column{
			integer("issuer_id"), integer("number"), text("key_id"), octets("fingerprint"), octets("der"), moment("created_at"),
		}},
		{Name: "enrollment_point", Key: []string{"name", "version"}, Columns: []Column{
			text("name"), integer("version"), octets("config"), moment("created_at"), text("created_by"),
		}},
		{Name: "challenge", Key: []string{"id"}, Columns: []Column{
			text("id"), octets("hash"), text("point"), text("profile"), text("subject"), texts("sans"), text("device"), text("note"),
			moment("created_at"), text("created_by"), moment("expires_at"), orMoment("used_at"), orOctets("used_by"), orMoment("revoked_at"), integer("failures"),
			text("batch"),
		}},
		{Name: "enrollment", Key: []string{"point", "transaction_id", "spki_hash"}, Columns: []Column{
			text("point"), text("transaction_id"), octets("spki_hash"), integer("version"), text("id"), integer("state"), octets("csr_hash"),
			octets("signer_hash"), text("challenge"), orOctets("issued"), orOctets("replaces"), text("subject"), texts("sans"), text("profile"),
			text("device"), text("source"), text("reason"), text("decided_by"), moment("created_at"), moment("updated_at"), moment("expires_at"), text("overrides"),
		}},
		{Name: "device", Key: []string{"id"}, Columns: []Column{
			text("id"), integer("version"), integer("status"), text("group_name"), text("owner"), text("labels"), text("subject"), texts("sans"),
			text("note"), text("reason"), moment("created_at"), text("created_by"), moment("changed_at"), text("changed_by"),
			orMoment("first_seen_at"), orMoment("last_seen_at"), text("last_source"), text("last_point"), text("protocol"), orOctets("certificate"),
			orInteger("issuer_key_id"), orOctets("serial"), orMoment("not_after"), integer("failures"), integer("renewal_failures"),
			orMoment("failed_at"), text("failure"), integer("returns"), integer("revoke_reason"), orMoment("revoke_until"), text("search_text"),
			text("revoke_profile"),
		}},
		{Name: "notification", Key: []string{"id"}, Columns: []Column{
			text("id"), text("point"), octets("body"), moment("created_at"), moment("next_at"), integer("attempts"), text("error"),
		}},
		{Name: "refusal", Key: []string{"day", "point", "kind", "reason"}, Columns: []Column{
			integer("day"), text("point"), text("kind"), text("reason"), integer("number"),
		}},
		{Name: "audit_batch", Key: []string{"change"}, Columns: []Column{
			integer("change"), integer("first_seq"), integer("count"), octets("root"), octets("hash"),
		}},
		{Name: "audit_record", Key: []string{"seq"}, Columns: []Column{
			integer("seq"), integer("change"), moment("time"), text("actor"), text("action"), text("target"), octets("record"),
		}},
	}
}
