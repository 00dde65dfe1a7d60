package console

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"unicode/utf8"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// Logs may be of any size: pages have a window of one, and ask for what is before it.
const (
	windowSize = 64 << 10
	mostBehind = 256 << 10 // a reader that is further behind goes on near the end
	mostWindow = 1 << 20
)

// logWindow is a piece of a log.
type logWindow struct {
	Offset  int64  `json:"offset"` // of the first byte
	End     int64  `json:"end"`    // after the last
	Text    string `json:"text"`
	Skipped bool   `json:"skipped,omitempty"` // what was between the last piece and this is left out
}

// before gives a piece of a log that ends at an offset, or with -1 where the log
// ends now. It starts with a line, if one starts in the first half of it.
func (c *Console) before(ctx context.Context, stream string, end int64, most int) (logWindow, error) {
	if end < 0 {
		var err error
		if end, err = c.logs.Size(ctx, stream); err != nil {
			return logWindow{}, err
		}
	}
	w := logWindow{Offset: max(0, end-int64(most)), End: end}
	p, err := c.logs.Read(ctx, stream, w.Offset, int(end-w.Offset))
	if err != nil {
		return w, err
	}
	if i := bytes.IndexByte(p, '\n'); w.Offset > 0 && i >= 0 && i < len(p)/2 {
		p, w.Offset = p[i+1:], w.Offset+int64(i)+1
	}
	w.End, w.Text = w.Offset+int64(len(p)), string(bytes.ToValidUTF8(p, []byte("�")))
	return w, nil
}

// window answers a piece of a log: ?before=OFFSET (the end without one), ?limit=BYTES.
func (c *Console) window(w http.ResponseWriter, r *http.Request) error {
	at, err := c.find(r, r.URL.Query().Get("resource"))
	if err != nil {
		return err
	}
	end, most := int64(-1), int64(windowSize)
	for name, into := range map[string]*int64{"before": &end, "limit": &most} {
		text := r.URL.Query().Get(name)
		if text == "" {
			continue
		}
		if *into, err = strconv.ParseInt(text, 10, 64); err != nil || *into < 0 {
			return resource.Invalid(name, "%s=%.40q is not a number of bytes", name, text)
		}
	}
	piece, err := c.before(r.Context(), runtime.LogStream(at.name(), r.URL.Query().Get("workload")), end, int(min(most, mostWindow)))
	if err != nil {
		return err
	}
	return writeJSON(w, piece)
}

// followed is a log that a page shows as it grows.
type followed struct {
	c      *Console
	f      *feed
	task   int64
	stream string
	done   bool // all of it was told
}

// followed reads which log a stream of events is asked for; nil for none.
func (c *Console) followed(r *http.Request, f *feed) (*followed, error) {
	q := r.URL.Query()
	if q.Get("workload") == "" {
		return nil, nil //nolint:nilnil // nothing is followed
	}
	id, err := strconv.ParseInt(q.Get("task"), 10, 64)
	if err != nil {
		return nil, resource.Invalid("task", "%.40q is not the id of a task", q.Get("task"))
	}
	owner := f.name + "/tasks/" + q.Get("task")
	return &followed{c: c, f: f, task: id, stream: runtime.LogStream(owner, q.Get("workload"))}, nil
}

// tell sends what came since; it reports that nothing more will.
func (l *followed) tell(ctx context.Context, s *stream, ended bool) (bool, error) {
	if l == nil || l.done {
		return true, nil
	}
	last := ended || l.over() // asked before the log is read: what comes after is read next time
	size, err := l.c.logs.Size(ctx, l.stream)
	if err != nil {
		return false, err
	}
	piece := logWindow{Offset: s.offset}
	if size-s.offset > mostBehind {
		if piece, err = l.c.before(ctx, l.stream, size, windowSize); err != nil {
			return false, err
		}
		piece.Skipped = true
	} else if size > s.offset {
		p, err := l.c.logs.Read(ctx, l.stream, s.offset, windowSize)
		if err != nil {
			return false, err
		}
		p = whole(p, last)
		piece.End, piece.Text = s.offset+int64(len(p)), string(bytes.ToValidUTF8(p, []byte("�")))
	}
	if piece.End <= s.offset {
		l.done = last
		return l.done, nil
	}
	s.offset = piece.End
	return false, s.send("log", piece)
}

// whole leaves out the beginning of a character whose end is not there yet.
func whole(p []byte, last bool) []byte {
	if last {
		return p
	}
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if b := p[len(p)-n]; utf8.RuneStart(b) {
			if !utf8.FullRune(p[len(p)-n:]) {
				return p[:len(p)-n]
			}
			break
		}
	}
	return p
}

// over reports a task that will say no more.
func (l *followed) over() bool {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	p := l.f.byID[l.task]
	return p == nil || p.phase.done() || l.f.ended()
}
