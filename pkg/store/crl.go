package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/certwright/certwright/pkg/pki"
)

// Stores keep a small CRL whole in its row. Of a large one the row has the small parts and says which other parts stand
// where; those are rows of their own, named by their hashes, so that lists which have them in common share them.
const (
	maxWholeCRL   = 64 << 10
	maxInlinePart = 1 << 10

	partInline = 0 // length
	partApart  = 1 // length, hash
)

// PackCRL returns what stores keep of a CRL: the octets in its row, how they and the parts that are rows of their own make
// up the DER (nil: the octets are the whole of it), and those parts, each once.
func PackCRL(parts []pki.CRLPart) (der, layout []byte, apart []pki.CRLPart) {
	c := pki.CRL{Parts: parts}
	if c.Size() <= maxWholeCRL {
		return append([]byte{}, c.DER()...), nil, nil
	}
	seen := map[[32]byte]bool{}
	der = []byte{}
	for _, p := range parts {
		if len(p.Data) <= maxInlinePart {
			der = append(der, p.Data...)
			layout = binary.BigEndian.AppendUint32(append(layout, partInline), uint32(len(p.Data)))
			continue
		}
		layout = binary.BigEndian.AppendUint32(append(layout, partApart), uint32(len(p.Data)))
		layout = append(layout, p.Hash[:]...)
		if !seen[p.Hash] {
			seen[p.Hash] = true
			apart = append(apart, p)
		}
	}
	return der, layout, apart
}

var errLayout = errors.New("the layout of a CRL's parts is damaged")

// UnpackCRL is the reverse of PackCRL. The data of parts that are rows of their own is left nil.
func UnpackCRL(der, layout []byte) ([]pki.CRLPart, error) {
	if layout == nil {
		return []pki.CRLPart{pki.NewCRLPart(der)}, nil
	}
	var parts []pki.CRLPart
	for len(layout) > 0 {
		if len(layout) < 5 {
			return nil, errLayout
		}
		kind, n := layout[0], int64(binary.BigEndian.Uint32(layout[1:]))
		layout = layout[5:]
		switch {
		case kind == partInline && n <= int64(len(der)):
			parts = append(parts, pki.NewCRLPart(der[:n:n]))
			der = der[n:]
		case kind == partApart && len(layout) >= sha256.Size:
			parts = append(parts, pki.CRLPart{Hash: [32]byte(layout)})
			layout = layout[sha256.Size:]
		default:
			return nil, errLayout
		}
	}
	if len(der) > 0 {
		return nil, errLayout
	}
	return parts, nil
}

// Apart returns the hashes of the parts that a layout refers to.
func Apart(layout []byte) ([][32]byte, error) {
	var hashes [][32]byte
	for len(layout) > 0 {
		switch {
		case len(layout) >= 5 && layout[0] == partInline:
			layout = layout[5:]
		case len(layout) >= 5+sha256.Size && layout[0] == partApart:
			hashes = append(hashes, [32]byte(layout[5:]))
			layout = layout[5+sha256.Size:]
		default:
			return nil, errLayout
		}
	}
	return hashes, nil
}

// ShardSets returns for each scope the set whose addresses certificates of it carry, if it is that of a shard, else nothing.
// Nobody needs a delta list whose complete list he has.
func ShardSets(scopes []string) []string {
	sets := make([]string, len(scopes))
	for i, scope := range scopes {
		sets[i], _, _ = pki.ParseShardScope(scope)
	}
	return sets
}
