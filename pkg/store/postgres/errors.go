package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// SQLSTATE codes (PostgreSQL manual, Appendix A).
const (
	codeUniqueViolation = "23505"
	codeForeignKey      = "23503"
	codeUndefinedTable  = "42P01"
	codeUndefinedSchema = "3F000"
	codeReadOnly        = "25006"
	codeLockTimeout     = "55P03"
	codeQueryCanceled   = "57014"
	codeCheck           = "23514"
	codePrivilege       = "42501"
)

// fail makes a fault of what the driver returned while doing something. Faults pass unchanged.
func fail(err error, doing string) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	away := func(detail string) error {
		return fault.Wrap(fault.Unavailable, err, "%s: %s", doing, detail).WithRetryAfter(retryAfter)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return away("the request ended first")
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case e.Code == "53100":
			return away("the database is out of disk space")
		case strings.HasPrefix(e.Code, "53"): // memory, connections
			return away("the database is out of resources")
		case strings.HasPrefix(e.Code, "57P"), strings.HasPrefix(e.Code, "08"): // shutting down, starting up
			return away("the database is away")
		case strings.HasPrefix(e.Code, "40"): // deadlock, serialization
			return away("the database was too busy")
		case e.Code == codeQueryCanceled, e.Code == codeLockTimeout:
			return away("the database took too long")
		case e.Code == codeReadOnly:
			return away("the database is read-only")
		case strings.HasPrefix(e.Code, "58"): // I/O errors
			return away("the database cannot reach its disk")
		case e.Code == codeCheck && e.ConstraintName == "head_closed":
			return fault.Wrap(fault.Unavailable, errors.Join(store.ErrNotInUse, err), "the store is fenced: nothing is written to it any more").
				WithRetryAfter(retryAfter)
		case e.Code == codePrivilege:
			return fault.Wrap(fault.Forbidden, err, "%s: the database's role may not do that", doing).
				WithHint("connect as the role that owns the tables, or give this one its rights with «certwright store grant»")
		case e.Code == codeUniqueViolation:
			return fault.Wrap(fault.Conflict, err, "%s: it exists already", doing)
		case strings.HasPrefix(e.Code, "28"), e.Code == "3D000": // wrong password, no such database
			return fault.Wrap(fault.Unavailable, err, "%s: the database refuses us", doing).
				WithHint("check the user, the password and the name of the database").WithRetryAfter(retryAfter)
		}
		return fault.Wrap(fault.Internal, err, "%s", doing)
	}
	if connectionLost(err) || errors.Is(err, puddle.ErrClosedPool) {
		return away("the database is away")
	}
	return fault.Wrap(fault.Internal, err, "%s", doing)
}

// connectionLost reports whether a connection that had been made broke, or was broken off by the server.
func connectionLost(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "57P01" || e.Code == "57P02" || e.Code == "25P03" || strings.HasPrefix(e.Code, "08")
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		pgconn.SafeToRetry(err) || strings.Contains(err.Error(), "conn closed") || strings.Contains(err.Error(), "conn busy")
}

// isCode reports whether the server refused a statement with this code.
func isCode(err error, code string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == code
}

// violates reports whether a unique constraint or index whose name ends so was violated.
func violates(err error, nameSuffix string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == codeUniqueViolation && strings.HasSuffix(e.ConstraintName, nameSuffix)
}

// withContext puts the context's error in front of what it caused, which the driver may have called a timeout of the
// network. What was decided before is left alone.
func withContext(ctx context.Context, err error) error {
	if _, decided := errors.AsType[*fault.Error](err); decided || err == nil {
		return err
	}
	if e := ctx.Err(); e != nil && !errors.Is(err, e) {
		return errors.Join(e, err)
	}
	return err
}
