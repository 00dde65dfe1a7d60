package score

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// maxRecord bounds a line that goes on after the end of its piece.
const maxRecord = 64 << 20

// Files reads pieces from the files that have them, so that the server need not send
// them. It knows how many lines are before a piece once somebody has asked: a bad row
// is told by its line, and only then are they counted.
type Files struct {
	mu    sync.Mutex
	lines map[string]mark // by file
}

// mark says that so many line breaks are before at, which is counted from the object's
// beginning.
type mark struct {
	at    int64
	lines int
}

// reads reports that pieces of the section are in files.
func (s Spec) reads() bool {
	for _, p := range s.Pieces {
		if p.File != "" {
			return true
		}
	}
	return false
}

// Load appends a section to buf: what was sent of it, which is body, and what is in
// files. The spec that it gives says what the section is put together of. sums are as
// in Stats.
func (f *Files) Load(spec Spec, body, buf []byte) (_ Spec, section []byte, sums []int64, err error) {
	pieces := make([]Piece, len(spec.Pieces))
	sums = make([]int64, len(pieces))
	for i, p := range spec.Pieces {
		start := len(buf)
		if p.File == "" {
			sums[i] = Sent
			n := min(max(0, p.Bytes), len(body))
			buf, body = append(buf, body[:n]...), body[n:]
		} else {
			if buf, sums[i], err = f.piece(p, buf); err != nil {
				return spec, buf, nil, fmt.Errorf("read a piece of %s: %w", p.Source, err)
			}
			at := p
			p.before = sync.OnceValues(func() (int, error) { return f.before(at) }) // not for each bad row
			p.Line = 1
		}
		p.Bytes, p.File = len(buf)-start, ""
		pieces[i] = p
	}
	spec.Pieces = pieces
	return spec, buf, sums, nil
}

// Numbered has the lines of pieces that were read counted, for whoever sends them.
func (s Spec) Numbered() (Spec, error) {
	pieces := make([]Piece, len(s.Pieces))
	for i, p := range s.Pieces {
		if p.before != nil {
			lines, err := p.before()
			if err != nil {
				return s, err
			}
			p.Line, p.before = p.Line+lines, nil
		}
		pieces[i] = p
	}
	s.Pieces = pieces
	return s, nil
}

// piece appends the lines that begin in [From, To), the last one to its end.
func (f *Files) piece(p Piece, buf []byte) (_ []byte, sum int64, err error) {
	if p.From < 0 || p.To < p.From || p.To-p.From > MaxSection || p.Offset < 0 {
		return buf, 0, fmt.Errorf("the range %d to %d", p.From, p.To)
	}
	file, err := os.Open(p.File)
	if err != nil {
		return buf, 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	start := len(buf)
	first, at := p.From, p.From
	if at > 0 { // a line begins at From where one ends before it
		at--
	}
	src := io.NewSectionReader(file, p.Offset+at, 1<<62-p.Offset-at)
	buf = grow(buf, int(p.To-at))
	if err := ReadStretches(src, buf[start:]); err != nil {
		return buf[:start], 0, err
	}
	sum = int64(crc32.Checksum(buf[start+int(first-at):], crc32.MakeTable(crc32.Castagnoli)))
	skip := 0
	if first > 0 {
		i := bytes.IndexByte(buf[start:], '\n')
		if skip = i + 1; i < 0 { // the line that was begun before goes on beyond To
			return buf[:start], sum, nil
		}
	}
	for len(buf)-start > skip && buf[len(buf)-1] != '\n' {
		if len(buf)-start-skip > maxRecord+int(p.To-at) {
			return buf[:start], 0, fmt.Errorf("a record is longer than %d MiB", maxRecord>>20)
		}
		from := len(buf)
		buf = grow(buf, flushBytes)
		n, err := io.ReadFull(src, buf[from:])
		buf = buf[:from+n]
		if i := bytes.IndexByte(buf[from:], '\n'); i >= 0 {
			buf = buf[:from+i+1]
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		} else if err != nil {
			return buf[:start], 0, err
		}
	}
	return append(buf[:start], buf[start+skip:]...), sum, nil
}

// before counts the line breaks before the first line of a piece, from where the last
// count of its file ended: sections come about in their order.
func (f *Files) before(p Piece) (lines int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.lines[p.File]
	if m.at > p.From {
		m = mark{}
	}
	file, err := os.Open(p.File)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	src := io.NewSectionReader(file, p.Offset+m.at, p.From-m.at)
	buf := make([]byte, Stretch)
	for {
		n, err := src.Read(buf)
		m.lines += bytes.Count(buf[:n], []byte{'\n'})
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, err
		}
	}
	m.at = p.From
	if f.lines == nil {
		f.lines = map[string]mark{}
	}
	if m.at >= f.lines[p.File].at {
		f.lines[p.File] = m
	}
	return m.lines + f.begun(file, p), nil
}

// begun is 1 where a line that began before a piece ends within it: that break is
// before the first line of the piece, too.
func (*Files) begun(file io.ReaderAt, p Piece) int {
	var last [1]byte
	if p.From == 0 {
		return 0
	}
	if _, err := file.ReadAt(last[:], p.Offset+p.From-1); err != nil || last[0] == '\n' {
		return 0
	}
	return 1
}

// grow extends a buffer by n bytes.
func grow(buf []byte, n int) []byte {
	if cap(buf)-len(buf) < n {
		grown := make([]byte, len(buf), len(buf)+n+n/64+flushBytes)
		copy(grown, buf)
		buf = grown
	}
	return buf[:len(buf)+n]
}
