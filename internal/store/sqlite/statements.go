package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// maxStatements bounds the texts that are kept compiled; the hot ones are few, and
// come first.
const maxStatements = 64

// statements keeps texts compiled on the connections that ran them: to compile one
// takes longer than to run it.
type statements struct {
	db     *sql.DB
	mu     sync.RWMutex
	byText map[string]*sql.Stmt
}

func newStatements(db *sql.DB) *statements {
	return &statements{db: db, byText: map[string]*sql.Stmt{}}
}

// get gives the compiled statement; nil, without an error, when there are too many.
func (s *statements) get(ctx context.Context, text string) (*sql.Stmt, error) {
	s.mu.RLock()
	st, ok := s.byText[text]
	full := len(s.byText) >= maxStatements
	s.mu.RUnlock()
	if ok || full {
		return st, nil
	}
	made, err := s.db.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.byText[text]; st != nil { // somebody else was faster
		return st, made.Close() //nolint:sqlclosecheck // the one of the two that nobody keeps
	}
	s.byText[text] = made
	return made, nil
}

// find gives a statement that is compiled already, or nil.
func (s *statements) find(text string) *sql.Stmt {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byText[text]
}

func (s *statements) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, 0, len(s.byText))
	for text, st := range s.byText {
		errs = append(errs, st.Close())
		delete(s.byText, text)
	}
	return errors.Join(errs...)
}

// hotTexts are what the writer runs all the time. It has one connection, so that
// they are compiled ahead and not amid a transaction.
func hotTexts() []string {
	return []string{selectRevision, updateRevision, savepoint, release, selectRow, putRow, deleteRow, lastEvent, appendEvent}
}

const (
	selectRevision = `SELECT last FROM revision`
	updateRevision = `UPDATE revision SET last = ?`
	savepoint      = `SAVEPOINT caller`
	release        = `RELEASE caller`
	selectRow      = `SELECT ` + columns + ` FROM row WHERE kind = ? AND key = ?`
	putRow         = `INSERT INTO row (` + columns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (kind, key) DO UPDATE SET parent = excluded.parent, state = excluded.state, data = excluded.data,
			revision = excluded.revision, updated = excluded.updated`
	deleteRow = `DELETE FROM row WHERE kind = ? AND key = ?`
	// Two statements, since SQLite journals an INSERT from a SELECT by itself, and what
	// that costs grows with the transaction around it.
	lastEvent   = `SELECT coalesce(max(seq), 0) FROM event WHERE subject = ?`
	appendEvent = `INSERT INTO event (subject, seq, time, type, data) VALUES (?, ?, ?, ?, ?)`
)
