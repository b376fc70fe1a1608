package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/certwright/certwright/pkg/fault"
)

// Parse reads the JSON of a document of type T, which is a struct; noun is what errors call it, as in "profile". Unknown
// and repeated fields, and anything after the object, are refused. The values are not judged. Errors are faults of the
// kind BadRequest that name the field.
func Parse[T any](b []byte, noun string) (T, error) {
	var v, none T
	if err := uniqueKeys(json.NewDecoder(bytes.NewReader(b)), ""); err != nil && !errors.Is(err, errSyntax) {
		return none, err
	}
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		t := reflect.TypeFor[T]()
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return none, fault.Wrap(fault.BadRequest, err, "a value of the wrong type (%s)", e.Value).WithField(e.Field)
		}
		if errors.Is(err, ErrDuration) {
			return none, fault.Wrap(fault.BadRequest, err, "%v", err).WithField(misfit(b, t, durationMisfit, ""))
		}
		if name, found := strings.CutPrefix(err.Error(), "json: unknown field "); found {
			return none, fault.New(fault.BadRequest, "%s %s has no such field", article(noun), noun).WithField(misfit(b, t, fieldMisfit, strings.Trim(clip(name), `"`)))
		}
		return none, fault.Wrap(fault.BadRequest, err, "the %s is not the JSON of one: %v", noun, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return none, fault.New(fault.BadRequest, "something follows the %s's JSON object", noun)
	}
	return v, nil
}

// article returns the indefinite article of a noun.
func article(noun string) string {
	if noun != "" && strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an"
	}
	return "a"
}

// What misfit looks for.
const (
	fieldMisfit    = iota // a field that the type does not have
	durationMisfit        // a text that is no duration
)

// misfit returns the whole path of the first thing that a decoder stumbled over, of which it tells the last part or
// nothing; otherwise when it finds none.
func misfit(b []byte, t reflect.Type, what int, otherwise string) string {
	var value any
	if json.Unmarshal(b, &value) != nil {
		return otherwise
	}
	var walk func(value any, t reflect.Type, path string) string
	walk = func(value any, t reflect.Type, path string) string {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch value := value.(type) {
		case string:
			if t == reflect.TypeFor[Duration]() && what == durationMisfit {
				if _, err := ParseDuration(value); err != nil {
					return path
				}
			}
		case []any:
			for i, v := range value {
				if t.Kind() == reflect.Slice {
					if found := walk(v, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); found != "" {
						return found
					}
				}
			}
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(value)) {
				if t.Kind() != reflect.Struct {
					continue
				}
				inner := strings.TrimPrefix(path+"."+name, ".")
				i := slices.IndexFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool {
					tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
					return strings.EqualFold(tag, name)
				})
				if i < 0 {
					if what == fieldMisfit {
						return clip(inner)
					}
					continue
				}
				if found := walk(value[name], t.Field(i).Type, inner); found != "" {
					return found
				}
			}
		}
		return ""
	}
	if found := walk(value, t, ""); found != "" {
		return found
	}
	return otherwise
}

// errSyntax ends uniqueKeys; the decoder words it better.
var errSyntax = errors.New("not JSON")

// uniqueKeys reads one value and refuses objects that have a key twice, in any letter case: encoding/json takes the
// last, other readers the first.
func uniqueKeys(d *json.Decoder, path string) error {
	token, err := d.Token()
	if err != nil {
		return errSyntax
	}
	switch token {
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			token, err := d.Token()
			name, ok := token.(string)
			if err != nil || !ok {
				return errSyntax
			}
			field := strings.TrimPrefix(path+"."+name, ".")
			if seen[strings.ToLower(name)] {
				return fault.New(fault.BadRequest, "the field stands twice").WithField(clip(field))
			}
			seen[strings.ToLower(name)] = true
			if err := uniqueKeys(d, field); err != nil {
				return err
			}
		}
	case json.Delim('['):
		for i := 0; d.More(); i++ {
			if err := uniqueKeys(d, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	if _, err := d.Token(); err != nil { // the closing delimiter
		return errSyntax
	}
	return nil
}

// clip bounds what a message repeats of foreign text.
func clip(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}
