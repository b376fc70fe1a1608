package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Decode reads one YAML document. Unknown keys are refused. Empty input changes nothing.
func Decode(r io.Reader, c *Config) error { return decode(r, c, "", nil) }

// decode walks the document beside the settings, since yaml's own errors name Go types and no keys. It notes where
// each setting stands.
func decode(r io.Reader, c *Config, file string, from sources) error {
	at := func(line int) string {
		if file == "" {
			return fmt.Sprintf("line %d", line)
		}
		return fmt.Sprintf("%s: line %d", file, line)
	}
	broken := func(err error) error {
		return &Error{Where: file, Detail: strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	dec := yaml.NewDecoder(io.LimitReader(r, 1<<20))
	var document, second yaml.Node
	switch err := dec.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return broken(err)
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		return &Error{Where: at(second.Line), Detail: "more than one document"}
	case !errors.Is(err, io.EOF):
		return broken(err)
	}
	return decodeGroup(document.Content[0], reflect.ValueOf(c).Elem(), "", at, from)
}

// decodeGroup reads a mapping into a struct.
func decodeGroup(n *yaml.Node, v reflect.Value, prefix string, at func(int) string, from sources) error {
	group := strings.TrimSuffix(prefix, ".")
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	known := slices.Sorted(maps.Keys(texts(Config{})))
	if n.Kind != yaml.MappingNode {
		e := &Error{Key: group, Where: at(n.Line), Detail: "want settings, as in http: 127.0.0.1:8080"}
		if i := slices.IndexFunc(known, func(k string) bool { return strings.HasPrefix(k, prefix) }); group != "" && i >= 0 {
			e.Detail = "this is a group of settings, such as " + known[i]
		}
		return e
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := prefix + name.Value
		if line, twice := seen[key]; twice {
			return &Error{Key: key, Where: at(name.Line), Detail: fmt.Sprintf("it stands in line %d already", line)}
		}
		seen[key] = name.Line
		field, ok := fieldOf(v, name.Value)
		if !ok {
			return &Error{Where: at(name.Line), Detail: "there is no setting " + key, Hint: didYouMean(key, known)}
		}
		if field.Kind() == reflect.Struct {
			if err := decodeGroup(value, field, key+".", at, from); err != nil {
				return err
			}
			continue
		}
		if err := value.Decode(field.Addr().Interface()); err != nil {
			detail := strings.TrimPrefix(err.Error(), "yaml: ")
			if _, ok := errors.AsType[*yaml.TypeError](err); ok {
				detail = "want " + form(field)
			}
			return &Error{Key: key, Where: at(value.Line), Detail: detail}
		}
		if from != nil {
			from[key] = source{where: at(value.Line)}
		}
	}
	return nil
}

func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("yaml"); tag == key && tag != "-" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// form says what a field takes.
func form(f reflect.Value) string {
	switch f.Addr().Interface().(type) {
	case *[]string:
		return "a list, as in [a, b]"
	case **bool:
		return "true or false"
	}
	return "one value"
}
