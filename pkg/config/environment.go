package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// others are the variables that are no settings of the process: which file, and what the command line reads.
var others = []string{"CONFIG", "KEY_PASSPHRASE", "SERVER", "TOKEN", "TOKEN_FILE", "CA_FILE", "CONTEXT"}

// testPrefix begins the variables of the tests, which are nobody else's business.
const testPrefix = EnvPrefix + "TEST_"

// Kubernetes and Docker tell each container where the services are: one named «certwright» or «certwright-http» comes
// as CERTWRIGHT_SERVICE_HOST, or CERTWRIGHT_HTTP_PORT=tcp://10.0.0.7:80. Nobody has set those by mistake.
var (
	serviceName = regexp.MustCompile(`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)
	serviceLink = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// CheckEnvironment refuses variables that begin with CERTWRIGHT_ and that nothing reads, with an [*Error] that has a hint
// when one was probably meant. environ is what os.Environ returns.
func CheckEnvironment(environ []string) error {
	known := environmentNames()
	var first error
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case !strings.HasPrefix(name, EnvPrefix), strings.HasPrefix(name, testPrefix), slices.Contains(known, name):
		case serviceName.MatchString(name), strings.HasSuffix(name, "_PORT") && serviceLink.MatchString(value):
		default:
			e := &Error{Where: name, Detail: "there is no such setting", Hint: meantVariable(name, known)}
			if e.Hint != "" {
				return e
			}
			if first == nil {
				first = e
			}
		}
	}
	return first
}

// environmentNames returns every variable that is read.
func environmentNames() []string {
	var names []string
	for _, n := range others {
		names = append(names, EnvPrefix+n)
	}
	for key := range texts(Config{}) {
		names = append(names, variable(key))
	}
	slices.Sort(names) // so that the nearest is always the same
	return names
}

// meantVariable is didYouMean for variables. Their common beginning must not make them all look near.
func meantVariable(name string, known []string) string {
	keys := make([]string, len(known))
	for i, k := range known {
		keys[i] = strings.TrimPrefix(k, EnvPrefix)
	}
	meant := didYouMean(strings.TrimPrefix(name, EnvPrefix), keys)
	return strings.NewReplacer("mean ", "mean "+EnvPrefix, " or ", " or "+EnvPrefix).Replace(meant)
}

// variable is the name that a setting has in the environment.
func variable(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// lookupIn is os.LookupEnv for a list. The first entry of a name counts, as there.
func lookupIn(environ []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, entry := range environ {
			if n, v, ok := strings.Cut(entry, "="); ok && n == name {
				return v, true
			}
		}
		return "", false
	}
}

// fromEnv lays CERTWRIGHT_* over the settings, and notes which came from there.
func fromEnv(c *Config, lookup func(string) (string, bool), from sources) error {
	if v, ok := lookup(EnvPrefix + "KEY_PASSPHRASE"); ok {
		c.Key.Passphrase = v
	}
	var err error
	eachSetting(reflect.ValueOf(c).Elem(), "", func(key string, f reflect.Value) {
		name := variable(key)
		text, ok := lookup(name)
		if !ok || text == "" || err != nil {
			return
		}
		if from != nil {
			from[key] = source{where: name}
		}
		switch p := f.Addr().Interface().(type) {
		case interface{ UnmarshalText([]byte) error }:
			if e := p.UnmarshalText([]byte(text)); e != nil {
				err = &Error{Key: key, Where: name, Detail: e.Error()}
			}
		case *string:
			*p = text
		case *[]string:
			*p = strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
		case **bool:
			b, e := strconv.ParseBool(text)
			if e != nil {
				err = &Error{Key: key, Where: name, Detail: strconv.Quote(text) + " is neither true nor false"}
			}
			*p = &b
		default:
			err = &Error{Key: key, Where: name, Detail: "settings of type " + f.Type().String() + " cannot come from the environment"}
		}
	})
	return err
}

// eachSetting calls f for every setting, with its key and its field.
func eachSetting(v reflect.Value, prefix string, f func(key string, field reflect.Value)) {
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("yaml")
		switch field := v.Field(i); {
		case key == "-":
		case field.Kind() == reflect.Struct:
			eachSetting(field, prefix+key+".", f)
		default:
			f(prefix+key, field)
		}
	}
}

// texts returns every setting as a text, by its key, to compare them.
func texts(c Config) map[string]string {
	all := make(map[string]string)
	eachSetting(reflect.ValueOf(&c).Elem(), "", func(key string, f reflect.Value) {
		if f.Kind() == reflect.Pointer && !f.IsNil() {
			f = f.Elem()
		}
		all[key] = fmt.Sprintf("%v", f.Interface())
	})
	return all
}
