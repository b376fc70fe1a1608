package transfer

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/store"
)

// Checkpoint is a head of the audit chain that somebody noted down: the server's log has one for each minute with a
// change.
type Checkpoint struct {
	Change int64
	Head   audit.Hash
}

// ParseCheckpoint reads CHANGE:HEAD, as in 1234:9f86d0...
func ParseCheckpoint(text string) (Checkpoint, error) {
	number, hash, ok := strings.Cut(strings.TrimSpace(text), ":")
	n, err := strconv.ParseInt(number, 10, 64)
	b, hexErr := hex.DecodeString(strings.TrimSpace(hash))
	if !ok || err != nil || n < 1 || hexErr != nil || len(b) != len(audit.Hash{}) {
		return Checkpoint{}, fmt.Errorf("%q is not CHANGE:HEAD, a number and 64 hexadecimal digits", text)
	}
	return Checkpoint{n, audit.Hash(b)}, nil
}

// String returns CHANGE:HEAD.
func (c Checkpoint) String() string { return fmt.Sprintf("%d:%x", c.Change, c.Head[:]) }

// Verification is the outcome of a walk over an audit chain.
type Verification struct {
	Problem string // where the chain breaks, or which checkpoint it does not pass through; empty if it is whole
	Changes int64
	Records int64
	Head    audit.Hash
}

// Trail is the part of a store that VerifyChain reads.
type Trail interface {
	// AuditChain walks the batches from the first; see [store.Audit].
	AuditChain(ctx context.Context) iter.Seq2[store.SealedBatch, error]
	// Head returns the newest change.
	Head(ctx context.Context) (store.Head, error)
}

// VerifyChain walks the audit chain of a store, and tells whether it is whole, ends in the store's head, and passes
// through every checkpoint. A chain that does was neither changed nor cut off before the newest of them.
func VerifyChain(ctx context.Context, s Trail, checkpoints ...Checkpoint) (Verification, error) {
	head, err := s.Head(ctx)
	if err != nil {
		return Verification{}, err
	}
	heads := map[int64]audit.Hash{}
	wanted := map[int64]bool{}
	for _, c := range checkpoints {
		wanted[c.Change] = true
	}
	var v audit.Verifier
	var problem string
	sawHead := head.Change == 0
	for b, err := range s.AuditChain(ctx) {
		if err != nil {
			return Verification{}, err
		}
		if err := v.Add(b.Batch, b.Records); err != nil {
			problem = err.Error()
			break
		}
		if wanted[v.Change] {
			heads[v.Change] = v.Head
		}
		// The chain may be longer than the head was: servers go on while it is walked.
		sawHead = sawHead || v.Change == head.Change && v.Head == head.Hash && v.Records == head.AuditSeq
	}
	out := Verification{Problem: problem, Changes: v.Change, Records: v.Records, Head: v.Head}
	switch {
	case problem != "":
	case !sawHead:
		out.Problem = fmt.Sprintf("the chain has %d changes and does not pass through the store's head, of change %d", v.Change, head.Change)
	default:
		for _, c := range checkpoints {
			switch got, ok := heads[c.Change]; {
			case !ok:
				out.Problem = fmt.Sprintf("the chain ends at change %d, before the checkpoint of change %d: its end was cut off, or the store was restored from a backup", v.Change, c.Change)
			case got != c.Head:
				out.Problem = fmt.Sprintf("at change %d the chain's head is %x, and not that of the checkpoint: the records up to there are not those that were", c.Change, got[:])
			default:
				continue
			}
			break
		}
	}
	return out, nil
}
