package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// book counts what happened. A problem is told when it is found.
type book struct {
	began time.Time

	acked    atomic.Int64 // writes whose answer was read in full
	settled  atomic.Int64 // writes cut off by a kill and found done or not done, never half done
	lost     atomic.Int64 // acknowledged and not there
	torn     atomic.Int64 // neither the old content nor a new one
	double   atomic.Int64 // programs that ran or committed twice
	problems atomic.Int64 // everything else that must not be

	mu    sync.Mutex
	out   io.Writer
	round string   // what replays it
	kills []string // of this round
}

// enter begins a round.
func (b *book) enter(seed uint64, round int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.round, b.kills = fmt.Sprintf("seed %d, round %d", seed, round), nil
}

// victim keeps what was killed in this round.
func (b *book) victim(what, workload string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kills = append(b.kills, strings.TrimSpace(what+" "+workload))
}

// where says what a problem follows upon.
func (b *book) where() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.kills) == 0 {
		return b.round
	}
	return b.round + ", killed: " + strings.Join(b.kills, ", ")
}

func (b *book) say(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, _ = fmt.Fprintf(b.out, "kill-loop: %5.1fs %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...)) // nobody to tell
}

func (b *book) note(count *atomic.Int64, kind, format string, args []any) {
	count.Add(1)
	b.say("%s: %s (%s)", kind, fmt.Sprintf(format, args...), b.where())
}

func (b *book) isLost(format string, args ...any)   { b.note(&b.lost, "LOST", format, args) }
func (b *book) isTorn(format string, args ...any)   { b.note(&b.torn, "TORN", format, args) }
func (b *book) isDouble(format string, args ...any) { b.note(&b.double, "DOUBLE", format, args) }
func (b *book) problem(format string, args ...any)  { b.note(&b.problems, "PROBLEM", format, args) }

func (b *book) failures() int64 {
	return b.lost.Load() + b.torn.Load() + b.double.Load() + b.problems.Load()
}
