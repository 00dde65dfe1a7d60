package sqlite

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"tategu/internal/volume"
)

// fault names the operation of the writer that failed. It tells a full disk by
// its code, and a broken one, after which the volume is read-only.
func (s *Store) fault(op string, err error) error {
	if err == nil || volume.Blocked(err) {
		return err
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return fmt.Errorf("%s: %w", op, err)
	}
	switch code := e.Code(); code {
	case sqlitelib.SQLITE_FULL, sqlitelib.SQLITE_IOERR_SHMSIZE:
		return volume.Full(fmt.Errorf("%s: %w", op, err))
	case sqlitelib.SQLITE_IOERR_FSYNC, sqlitelib.SQLITE_IOERR_DIR_FSYNC, sqlitelib.SQLITE_IOERR_WRITE, sqlitelib.SQLITE_IOERR_TRUNCATE,
		sqlitelib.SQLITE_IOERR_READ, sqlitelib.SQLITE_IOERR_SHORT_READ, sqlitelib.SQLITE_IOERR_CORRUPTFS, sqlitelib.SQLITE_IOERR_DATA,
		sqlitelib.SQLITE_IOERR, sqlitelib.SQLITE_NOTADB:
		return s.disk.Break(fmt.Errorf("%s: %w", op, err))
	default:
		if code&0xff == sqlitelib.SQLITE_CORRUPT {
			return s.disk.Break(fmt.Errorf("%s: %w", op, err))
		}
		return fmt.Errorf("%s: %w", op, err)
	}
}
