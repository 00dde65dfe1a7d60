package score_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"tategu/internal/batch/score"
)

// largest remembers the most that was asked for at once.
type largest struct {
	io.Reader

	n int
}

func (l *largest) Read(p []byte) (int, error) {
	l.n = max(l.n, len(p))
	return l.Reader.Read(p)
}

func TestReadStretches(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456"), score.Stretch/2)
	for _, n := range []int{0, 1, score.Stretch, score.Stretch + 1, len(data)} {
		for _, from := range []io.Reader{bytes.NewReader(data), iotest.HalfReader(bytes.NewReader(data)), iotest.DataErrReader(bytes.NewReader(data[:n]))} {
			r, buf := &largest{Reader: from}, make([]byte, n)
			if err := score.ReadStretches(r, buf); err != nil || !bytes.Equal(buf, data[:n]) || r.n > score.Stretch {
				t.Errorf("%d bytes: %v, %d at once, equal %t", n, err, r.n, bytes.Equal(buf, data[:n]))
			}
		}
	}
	for have, want := range map[int]error{0: io.EOF, 1: io.ErrUnexpectedEOF, score.Stretch: io.ErrUnexpectedEOF} {
		if err := score.ReadStretches(bytes.NewReader(data[:have]), make([]byte, score.Stretch+5)); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", have, err, want)
		}
	}
}
