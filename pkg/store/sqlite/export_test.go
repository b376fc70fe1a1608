package sqlite

import (
	"context"
	"io/fs"
)

// IndexAfter is how many certificates wait before the text index is extended.
const IndexAfter = indexAfter

// MigrateFS is Migrate with other files.
func MigrateFS(ctx context.Context, path string, files fs.FS) (from, to uint, err error) {
	return migrateFS(ctx, path, files)
}

// Indexed returns how many certificates are in the text index, as a search sees it, and how many there are.
func (s *Store) Indexed(ctx context.Context) (indexed, all int, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT (SELECT certificate_id FROM search_progress), (SELECT max(id) FROM certificate)`).Scan(&indexed, &all)
	return indexed, all, err
}

// Plan returns the query plan of a status look-up.
func (s *Store) Plan(ctx context.Context) (plan []string, err error) {
	err = each(ctx, s.read, `EXPLAIN QUERY PLAN `+selectStatus, []any{1, 2, []byte{3}}, func(scan func(...any) error) error {
		var id, parent, unused int
		var detail string
		err := scan(&id, &parent, &unused, &detail)
		plan = append(plan, detail)
		return err
	})
	return plan, err
}

// BreakBatch writes an operation that fails as no verb does, together with others.
func (s *Store) BreakBatch(ctx context.Context) error {
	return s.write(ctx, &op{apply: func(t *tx) error { return t.exec(`INSERT INTO head (strand) VALUES (1)`) }})
}

// Panic writes an operation that panics after it has written something.
func (s *Store) Panic(ctx context.Context) error {
	return s.write(ctx, &op{apply: func(t *tx) error {
		if err := t.reserveKey([32]byte{1}); err != nil {
			return err
		}
		panic("test")
	}})
}
