package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// LogPrefix starts the content ids of logs: Sweep leaves them alone, and an
// adapter that keeps some of its disk free may let logs use of it.
const LogPrefix = "log-"

// LogContent is the content id of a stream.
func LogContent(stream string) string { return logID(stream) }

func logID(stream string) string {
	sum := sha256.Sum256([]byte(stream))
	return LogPrefix + hex.EncodeToString(sum[:16])
}

// AppendLog adds p, which starts at the byte offset of the stream. It outlasts the
// process; a power loss may take what was added in the seconds before (docs/adr/0004).
// What is there already is not added twice: the same call may be repeated after a
// kill. A gap is refused.
func (s *Store) AppendLog(ctx context.Context, stream string, offset int64, p []byte) error {
	unlock, err := s.locks.lock(ctx, logID(stream))
	if err != nil {
		return err
	}
	defer unlock()
	size, err := s.LogSize(ctx, stream)
	if err != nil {
		return err
	}
	switch {
	case offset < 0 || offset > size:
		return resource.Errorf(codes.OutOfRange, "log %s has %d bytes: cannot add at %d", stream, size, offset)
	case size-offset >= int64(len(p)):
		return nil
	}
	if _, err := s.content.Append(ctx, logID(stream), size, bytes.NewReader(p[size-offset:])); err != nil {
		return fmt.Errorf("add to log %s: %w", stream, err)
	}
	return nil
}

// LogSize is how many bytes a stream has; 0 for one that nobody wrote.
func (s *Store) LogSize(ctx context.Context, stream string) (int64, error) {
	size, err := s.content.Size(ctx, logID(stream))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("size of log %s: %w", stream, err)
	}
	return size, nil
}

// ReadLog gives up to limit bytes from offset: none at the end of what is there.
func (s *Store) ReadLog(ctx context.Context, stream string, offset int64, limit int) (_ []byte, err error) {
	r, err := s.content.Open(ctx, logID(stream), offset, int64(limit))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log %s: %w", stream, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read log %s: %w", stream, err)
	}
	return data, nil
}

// RemoveLog deletes a stream.
func (s *Store) RemoveLog(ctx context.Context, stream string) error {
	return s.content.Remove(ctx, logID(stream))
}
