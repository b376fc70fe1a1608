package rest

import (
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	documents "github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/fault"
)

// Profiles, issuers' settings, enrollment points and devices have versions: whoever changes one says which version he has
// seen (RFC 9110, Section 13.1.1), so that nobody's change is lost.

// etag returns the entity tag of a version.
func etag(version int) string { return strconv.Quote(strconv.Itoa(version)) }

// matchVersion returns the version that an If-Match names. of is what it must be a version of, as in "a profile"; least is
// the first that there can be.
func matchVersion(ifMatch, of string, least int) (int, error) {
	version := 0
	text, err := strconv.Unquote(ifMatch)
	if err == nil {
		version, err = strconv.Atoi(text)
	}
	if err != nil || version < least {
		return 0, fault.New(fault.BadRequest, "If-Match is not the ETag of %s", of).WithField("If-Match").
			WithHint(`it is the version in quotation marks, as in "3"`)
	}
	return version, nil
}

// needsMatch refuses a change that does not say on which version it was made.
func needsMatch(err *fault.Error) error {
	return &precondition{status: http.StatusPreconditionRequired, error: err.WithField("If-Match").
		WithHint("read it, make the change on what it is, and send its ETag as If-Match: so nobody's change is lost")}
}

// onlyIfNone refuses an If-None-Match that asks for something else than that there be nothing.
func onlyIfNone(ifNoneMatch, ifMatch string) error {
	if ifNoneMatch != "" && (ifNoneMatch != "*" || ifMatch != "") {
		return fault.New(fault.BadRequest, "If-None-Match can be * only, and not beside If-Match").WithField("If-None-Match")
	}
	return nil
}

// rawDocument is a document as it was sent: the package whose it is reads it.
type rawDocument struct{ raw []byte }

// UnmarshalJSON keeps the bytes.
func (d *rawDocument) UnmarshalJSON(text []byte) error {
	d.raw = append([]byte(nil), text...)
	return nil
}

// documentSchema describes a document from its type, under a name.
func documentSchema[C any](r huma.Registry, name, description string, required ...string) *huma.Schema {
	if _, known := r.Map()[name]; !known {
		s := schemaOf(reflect.TypeFor[C]())
		if s.Description = description; len(required) > 0 {
			s.Required = required
		}
		r.Map()[name] = s
	}
	return &huma.Schema{Ref: "#/components/schemas/" + name}
}

// changedFields names the fields in which a document differs from the version before, which is nil where everything had its
// default. One that this release cannot read is shown without.
func changedFields[C any](parse func([]byte) (C, error), before, after []byte) ([]string, error) {
	fields := []string{}
	var old C
	now, err := parse(after)
	if err == nil && before != nil {
		old, err = parse(before)
	}
	if err != nil {
		return fields, nil //nolint:nilerr // as said
	}
	changes, err := documents.Diff(old, now)
	for _, c := range changes {
		fields = append(fields, c.Field)
	}
	return fields, err
}

func showChanges(changes []documents.Change) []ProfileChange {
	out := []ProfileChange{}
	for _, c := range changes {
		out = append(out, ProfileChange(c))
	}
	return out
}
