package sqlite

import (
	"context"
	"fmt"

	"tategu/internal/volume"
)

// SQLite's own automatic checkpoint drops its errors, and those of an fsync of the
// database file must not be dropped. So the writer checkpoints, after its commits.
const (
	// logFrames is the length of the write-ahead log, in pages of 4 KiB, from which
	// on it is moved into the database; SQLite's own number.
	logFrames = 1000
	// lowFrames is the same while the disk is nearly full.
	lowFrames = 64
	// maxFrames is the length from which on the writer waits for readers, which else
	// keep the log from starting again when they never pause.
	maxFrames = 8 * logFrames
	// lookEvery is how many written pages, about, may pass before the log is looked at.
	lookEvery = 50
	// logLimit is what remains of a log that long readers let grow, in bytes.
	logLimit = 16 << 20
)

// tend keeps the log short. It runs on the writer's goroutine after each group.
func (s *Store) tend(err error) {
	if volume.Blocked(err) && s.disk.Writable() == nil {
		// The disk is full. Once the log's pages are in the database, the log starts
		// again from its beginning, where it has room already.
		s.checkpoint(1)
		return
	}
	if s.since++; s.since < lookEvery {
		return
	}
	limit := logFrames
	if s.disk.Low() {
		limit = lowFrames
	}
	s.checkpoint(limit)
}

// checkpoint moves a log of at least limit pages. A failure shows in fault, and
// here only in that the log stays.
func (s *Store) checkpoint(limit int) {
	s.since = 0
	frames, moved, err := s.walCheckpoint("NOOP")
	if err == nil && frames-moved >= limit && s.disk.Writable() == nil {
		if _, _, err = s.walCheckpoint("PASSIVE"); err == nil && frames >= maxFrames { // passive: waits for nobody
			err = s.restart()
		}
	}
	if err != nil {
		_ = s.fault("checkpoint", err) // a broken disk is told there; a full one lets the next try do it
	}
}

// keepLogRoom takes the room of a log of the usual length from the disk, so that
// on one that something else fills there still can be written: an end, a cancel, a
// deletion. It does without where the file system cannot do that.
func (s *Store) keepLogRoom(ctx context.Context, path string) error {
	var last int64
	// The first look makes the log.
	if err := s.write.QueryRowContext(ctx, `SELECT last FROM revision`).Scan(&last); err != nil {
		return fmt.Errorf("open store %s: %w", path, err)
	}
	allocate(path+"-wal", logFrames*4096)
	return nil
}

// restart moves the whole log and lets it start again, for which the readers that
// use it are waited for, but not long.
func (s *Store) restart() error {
	const patience, usual = "PRAGMA busy_timeout(250)", "PRAGMA busy_timeout(10000)"
	if _, err := s.write.ExecContext(context.Background(), patience); err != nil {
		return err
	}
	_, _, err := s.walCheckpoint("RESTART")
	if _, uerr := s.write.ExecContext(context.Background(), usual); uerr != nil {
		return uerr
	}
	return err
}

func (s *Store) walCheckpoint(mode string) (frames, moved int, err error) {
	var busy int
	err = s.write.QueryRowContext(context.Background(), fmt.Sprintf("PRAGMA wal_checkpoint(%s)", mode)).Scan(&busy, &frames, &moved)
	return frames, moved, err
}
