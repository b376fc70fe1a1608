package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Change is a difference between two documents. Old and New are JSON; nil where the field is not there.
type Change struct {
	Field string
	Old   json.RawMessage
	New   json.RawMessage
}

// Diff returns the fields in which two documents differ, by their paths ("validity.max"), in alphabetical order.
// Lists are compared as a whole, since their order can matter.
func Diff[T any](before, after T) ([]Change, error) {
	was, err := fieldsOf(before)
	if err != nil {
		return nil, err
	}
	is, err := fieldsOf(after)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(was)
	maps.Copy(all, is)
	var changes []Change
	for _, field := range slices.Sorted(maps.Keys(all)) {
		if !bytes.Equal(was[field], is[field]) {
			changes = append(changes, Change{Field: field, Old: was[field], New: is[field]})
		}
	}
	return changes, nil
}

// fieldsOf flattens a document. An empty object stays: sans.dns allows DNS names by being there.
func fieldsOf(c any) (map[string]json.RawMessage, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("comparing documents: %w", err)
	}
	out := map[string]json.RawMessage{}
	var walk func(path string, value json.RawMessage) error
	walk = func(path string, value json.RawMessage) error {
		object := map[string]json.RawMessage{}
		if path == "" && bytes.Equal(value, []byte("{}")) {
			return nil // a document that says nothing
		}
		if len(value) == 0 || value[0] != '{' || bytes.Equal(value, []byte("{}")) {
			out[path] = value
			return nil
		}
		if err := json.Unmarshal(value, &object); err != nil {
			return fmt.Errorf("comparing documents: %w", err)
		}
		for name, v := range object {
			field := name
			if path != "" {
				field = path + "." + name
			}
			if err := walk(field, v); err != nil {
				return err
			}
		}
		return nil
	}
	return out, walk("", text)
}
