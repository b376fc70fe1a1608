// Package audit defines the record of a state change and the hash chain over batches of records.
//
// A record's canonical bytes are what is kept, hashed and shown: JSON with the fields in the order of Record and the
// keys of Detail sorted. A batch is what the store committed together; its root is the Merkle tree hash of RFC 6962,
// Section 2.1, over the canonical bytes in order, and the chain's head after it is
// SHA-256(previous head || change number as 8 octets, big endian || root). Whoever holds a head can tell whether
// anything before it was changed, dropped or put in another order.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"
)

// Hash is a node or a head of the chain. The zero value is the head before the first batch.
type Hash [sha256.Size]byte

// Record says who did what to what. Target names the thing as REST does: "certificate/FINGERPRINT", "token/ID".
// Nothing in a record is secret.
type Record struct {
	Time      time.Time         `json:"time"` // UTC, microseconds
	Action    string            `json:"action"`
	Actor     string            `json:"actor"` // the principal's name
	Role      string            `json:"role,omitempty"`
	Source    string            `json:"source,omitempty"` // network address
	RequestID string            `json:"request_id,omitempty"`
	Target    string            `json:"target,omitempty"`
	Detail    map[string]string `json:"detail,omitempty"`
}

// Actions that records carry. A record of another action is valid; these are the ones that more than one package names.
const (
	ActionIssue     = "certificate.issue"
	ActionRenew     = "certificate.renew"
	ActionRevoke    = "certificate.revoke"
	ActionHold      = "certificate.hold"
	ActionRelease   = "certificate.release"
	ActionBootstrap = "store.bootstrap"
	ActionRewrap    = "key.rewrap"
	ActionToken     = "token.create"
	ActionTokenEnd  = "token.revoke"
	ActionProfile   = "profile.put"
	ActionPoint     = "enrollment_point.put"
	ActionRA        = "ra.put"
	ActionIssuer    = "issuer.put"

	ActionDevice        = "device.create"
	ActionDeviceChange  = "device.change"
	ActionDeviceBlock   = "device.block"
	ActionDeviceUnblock = "device.unblock"
	ActionDeviceRetire  = "device.retire"
	ActionChallenge     = "challenge.create"
	ActionChallengeEnd  = "challenge.revoke"
	ActionChallengeFail = "challenge.fail"
	ActionPending       = "enrollment.pending"
	ActionDeny          = "enrollment.deny"
	ActionExpire        = "enrollment.expire"
	ActionReturn        = "enrollment.return"
	ActionRefuse        = "enrollment.refuse"
	ActionWebhookGiveUp = "webhook.give-up"
	ActionCRLAddress    = "crl.address"
)

// What a record keeps of texts that a stranger may have written, as octets of its canonical bytes: of one value of Detail,
// and of all of them. What is cut ends with how long it was and its SHA-256, so that the whole, where somebody has it, can
// be told to be the one.
const (
	maxValue  = 4 << 10
	maxDetail = 32 << 10
)

// Canonical returns the record's canonical bytes. The time is cut to microseconds, which both stores keep, and so are long
// values of Detail. What is not UTF-8 becomes U+FFFD.
func (r Record) Canonical() []byte {
	for _, text := range []*string{&r.Action, &r.Actor, &r.Role, &r.Source, &r.RequestID, &r.Target} {
		*text = strings.ToValidUTF8(*text, "\ufffd")
	}
	r.Detail = bounded(r.Detail)
	return r.encode()
}

// bounded returns detail with its long values cut. It is the same map when none is.
func bounded(detail map[string]string) map[string]string {
	kept, takes := cutAll(detail, maxValue)
	if takes > maxDetail {
		kept, _ = cutAll(detail, maxDetail/len(detail))
	}
	return kept
}

// cutAll cuts values that take more than limit octets, and returns how many the values take.
func cutAll(detail map[string]string, limit int) (kept map[string]string, takes int) {
	kept = detail
	changed := false
	for key, value := range detail {
		text := strings.ToValidUTF8(value, "\ufffd")
		end, n := within(text, limit)
		if end < len(text) {
			about := fmt.Sprintf("... (cut: %d octets, SHA-256 %x)", len(value), sha256.Sum256([]byte(value)))
			end, n = within(text, max(0, limit-len(about)))
			text, n = text[:end]+about, n+len(about)
		}
		takes += n
		if text == value {
			continue
		}
		if !changed {
			kept, changed = maps.Clone(detail), true
		}
		kept[key] = text
	}
	return kept, takes
}

// within returns how long the beginning of a text, in UTF-8, is that takes at most limit octets in JSON, and how many it takes.
func within(text string, limit int) (end, takes int) {
	for at, c := range text {
		n := utf8.RuneLen(c)
		switch {
		case c < ' ' || c == '\u2028' || c == '\u2029':
			n = len(`\u0001`)
		case c == '"' || c == '\\':
			n = 2
		}
		if takes+n > limit {
			return at, takes
		}
		takes += n
	}
	return len(text), takes
}

func (r Record) encode() []byte {
	r.Time = r.Time.UTC().Truncate(time.Microsecond)
	b := new(bytes.Buffer)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		panic("audit: a record of strings and a time does not encode: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Parse reads canonical bytes. Bytes that Canonical would not have written are an error: a record that can be read in
// two ways proves nothing.
func Parse(canonical []byte) (Record, error) {
	var r Record
	dec := json.NewDecoder(bytes.NewReader(canonical))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("reading an audit record: %w", err)
	}
	if !bytes.Equal(r.encode(), canonical) { // an earlier release cut nothing
		return Record{}, fmt.Errorf("reading an audit record: the bytes are not in canonical form")
	}
	return r, nil
}

// Root returns the Merkle tree hash of the records' canonical bytes (RFC 6962, Section 2.1).
func Root(records [][]byte) Hash {
	switch n := len(records); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, records[0]...))
	default:
		k := 1 // the largest power of two below n
		for k*2 < n {
			k *= 2
		}
		left, right := Root(records[:k]), Root(records[k:])
		var b [1 + 2*sha256.Size]byte
		b[0] = 1
		copy(b[1:], left[:])
		copy(b[1+sha256.Size:], right[:])
		return sha256.Sum256(b[:])
	}
}

// Next returns the chain's head after a batch with the given change number and root.
func Next(head Hash, change int64, root Hash) Hash {
	var b [2*sha256.Size + 8]byte
	copy(b[:], head[:])
	binary.BigEndian.PutUint64(b[sha256.Size:], uint64(change))
	copy(b[sha256.Size+8:], root[:])
	return sha256.Sum256(b[:])
}

// Batch is what one commit added to the chain. A batch without records still moves the head: it carries a change that
// needs no record, such as a published CRL.
type Batch struct {
	Change   int64 // the store's change number, counting from 1
	FirstSeq int64 // sequence number of the first record, counting from 1; of the next batch's first when Count is 0
	Count    int
	Root     Hash
	Head     Hash // after this batch
}

// Event is a record with its place in the chain.
type Event struct {
	Seq    int64
	Change int64
	Bytes  []byte // canonical
}

// A Verifier walks the chain from its beginning. The zero value stands before the first batch. It is not safe for
// concurrent use.
type Verifier struct {
	Head    Hash
	Change  int64
	Records int64
}

// Add checks the next batch and its records against what came before. The error says where the chain breaks.
func (v *Verifier) Add(b Batch, records [][]byte) error {
	switch {
	case b.Change != v.Change+1:
		return fmt.Errorf("change %d follows %d: batches are missing or out of order", b.Change, v.Change)
	case len(records) != b.Count:
		return fmt.Errorf("change %d has %d audit records, its batch was sealed with %d", b.Change, len(records), b.Count)
	case b.FirstSeq != v.Records+1:
		return fmt.Errorf("change %d begins with record %d, want %d", b.Change, b.FirstSeq, v.Records+1)
	case Root(records) != b.Root:
		return fmt.Errorf("change %d: the audit records %d to %d are not those that were sealed", b.Change, b.FirstSeq, b.FirstSeq+int64(b.Count)-1)
	case Next(v.Head, b.Change, b.Root) != b.Head:
		return fmt.Errorf("change %d: the chain does not continue from the batch before", b.Change)
	}
	for i, r := range records {
		if _, err := Parse(r); err != nil {
			return fmt.Errorf("record %d: %w", b.FirstSeq+int64(i), err)
		}
	}
	v.Head, v.Change, v.Records = b.Head, b.Change, v.Records+int64(b.Count)
	return nil
}
