package store_test

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/store"
)

// TestEveryVerbIsMeasured calls each verb with zero values on a store that is not there: the call panics, and a verb that
// is measured has told of it all the same.
func TestEveryVerbIsMeasured(t *testing.T) {
	told := map[string]bool{}
	s := store.Measured(nil, func(verb string, _ time.Duration, _ error) { told[verb] = true })
	quiet := map[string]string{
		"Close": "ends the store", "Stats": "reads memory",
		"Revocations": "tells when its stream ends, see TestStreamsAreMeasured", "AuditChain": "as Revocations",
	}
	typ := reflect.TypeFor[store.Store]()
	for i := range typ.NumMethod() {
		m := typ.Method(i)
		func() {
			defer func() { _ = recover() }()
			var args []reflect.Value
			for j := range m.Type.NumIn() {
				args = append(args, reflect.Zero(m.Type.In(j)))
			}
			method := reflect.ValueOf(s).MethodByName(m.Name)
			if m.Type.IsVariadic() {
				method.CallSlice(args)
			} else {
				method.Call(args)
			}
		}()
		if _, ok := quiet[m.Name]; told[m.Name] == ok {
			t.Errorf("%s: measured is %v; add the verb to measured.go, as its neighbours stand there", m.Name, told[m.Name])
		}
	}
}

// chain is a store of which only AuditChain is called.
type chain struct {
	store.Store
	err error
}

func (c chain) AuditChain(context.Context) iter.Seq2[store.SealedBatch, error] {
	return func(yield func(store.SealedBatch, error) bool) {
		if yield(store.SealedBatch{}, nil) {
			yield(store.SealedBatch{}, c.err)
		}
	}
}

func TestStreamsAreMeasured(t *testing.T) {
	broken := errors.New("broken")
	var told []error
	s := store.Measured(chain{err: broken}, func(verb string, _ time.Duration, err error) {
		if verb != "AuditChain" {
			t.Errorf("told of %s", verb)
		}
		told = append(told, err)
	})
	for range s.AuditChain(t.Context()) {
		if len(told) > 0 {
			t.Error("told before the end")
		}
	}
	for range s.AuditChain(t.Context()) {
		break
	}
	if len(told) != 2 || told[0] != broken || told[1] != nil {
		t.Errorf("told of %v, want the error and then none", told)
	}
}
