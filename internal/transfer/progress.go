package transfer

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync/atomic"
	"time"
)

// Progress counts what is moved and tells a person.
type Progress struct {
	began           time.Time
	bytes, total    atomic.Int64
	files, all      atomic.Int64
	left            atomic.Int64 // skipped
	unknown, sorted atomic.Bool  // some sizes are not known; all sources are
}

// NewProgress begins to count.
func NewProgress(now time.Time) *Progress { return &Progress{began: now} }

// Found adds a file of so many bytes to what is to be moved; -1 = not known.
func (p *Progress) Found(size int64) {
	p.all.Add(1)
	if size < 0 {
		p.unknown.Store(true)
		return
	}
	p.total.Add(size)
}

// Planned says that all files were found.
func (p *Progress) Planned() { p.sorted.Store(true) }

// Add counts bytes that were moved.
func (p *Progress) Add(n int64) { p.bytes.Add(n) }

// Finished counts a file that was moved.
func (p *Progress) Finished() { p.files.Add(1) }

// Skipped counts a file that was left as it is.
func (p *Progress) Skipped() { p.left.Add(1) }

// line tells what goes on: bytes, rate, and the time left once it is known.
func (p *Progress) line(now time.Time) string {
	took := now.Sub(p.began).Seconds()
	bytes, total := p.bytes.Load(), p.total.Load()
	rate := 0.0
	if took > 0 {
		rate = float64(bytes) / took
	}
	text := fmt.Sprintf("%d of %d files  %s", p.files.Load(), p.all.Load(), Size(bytes))
	if !p.unknown.Load() {
		text += " of " + Size(total)
	}
	text += "  " + Size(int64(rate)) + "/s"
	if p.sorted.Load() && !p.unknown.Load() && rate > 0 && total > bytes {
		eta := time.Duration(float64(total-bytes) / rate * float64(time.Second))
		text += "  " + eta.Round(time.Second).String() + " left"
	}
	return text
}

// Show draws the line on a terminal until ctx ends, and takes it away then.
func (p *Progress) Show(ctx context.Context, w io.Writer) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			_, _ = io.WriteString(w, "\r\x1b[K") // a terminal that went away shows nothing
			return
		case now := <-tick.C:
			_, _ = io.WriteString(w, "\r\x1b[K"+p.line(now)) // likewise
		}
	}
}

// Summary is the line at the end.
func (p *Progress) Summary(now time.Time) string {
	took := max(now.Sub(p.began), time.Millisecond)
	files := "1 file"
	if n := p.files.Load(); n != 1 {
		files = strconv.FormatInt(n, 10) + " files"
	}
	text := fmt.Sprintf("copied %s, %s in %s (%s/s)", files, Size(p.bytes.Load()), took.Round(time.Millisecond), Size(int64(float64(p.bytes.Load())/took.Seconds())))
	if n := p.left.Load(); n > 0 {
		text += fmt.Sprintf(", skipped %d", n)
	}
	return text
}

// Size writes a number of bytes as people read it, in powers of 1,000.
func Size(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n), -1
	for math.Round(v*10)/10 >= 1000 {
		v, unit = v/1000, unit+1
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + "kMGTPE"[unit:unit+1] + "B"
}
