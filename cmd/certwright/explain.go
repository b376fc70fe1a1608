package main

import (
	"cmp"
	"errors"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/fault"
)

// explain turns an error into what the user reads: what went wrong, and what to do about it, which may be empty.
func explain(err error) (message, hint string) {
	message = err.Error()
	if e, ok := errors.AsType[*usageError](err); ok {
		return message, e.hint
	}
	if e, ok := errors.AsType[*hintError](err); ok {
		return message, e.hint
	}
	if e, ok := errors.AsType[*config.Error](err); ok {
		return message, cmp.Or(e.Hint, "«certwright serve --help» and docs/configuration.md list the settings")
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return message, e.Hint
	}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return message, e.Hint
	}
	return message, ""
}
