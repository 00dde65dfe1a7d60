package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
)

// report counts what was found; several goroutines use it.
type report struct {
	out     io.Writer
	seed    uint64
	verbose bool

	mu             sync.Mutex
	passed, failed int
	statuses       map[string]int
	unsupported    map[string]int
}

func (r *report) pass() {
	r.mu.Lock()
	r.passed++
	r.mu.Unlock()
}

// fail tells what went wrong and how to send the same again.
func (r *report) fail(what, replay, request string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
	if r.failed > 50 {
		return // the first ones say enough
	}
	r.printf("FAIL %s\n  replay: %s\n  %s\n", what, replay, strings.ReplaceAll(strings.TrimSpace(request), "\n", "\n  "))
}

func (r *report) count(status string) {
	r.mu.Lock()
	r.statuses[status]++
	r.mu.Unlock()
}

// refused notes what an UNIMPLEMENTED answer named.
func (r *report) refused(what string) {
	r.mu.Lock()
	r.unsupported[what]++
	r.mu.Unlock()
}

func (r *report) notef(format string, args ...any) {
	r.mu.Lock()
	r.printf(format+"\n", args...)
	r.mu.Unlock()
}

func (r *report) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(r.out, format, args...) // nobody is left to tell
}

func (r *report) end() {
	if len(r.statuses) > 0 {
		parts := make([]string, 0, len(r.statuses))
		for _, s := range slices.Sorted(maps.Keys(r.statuses)) {
			parts = append(parts, fmt.Sprintf("%s:%d", s, r.statuses[s]))
		}
		r.printf("answers: %s\n", strings.Join(parts, " "))
	}
	if len(r.unsupported) > 0 {
		r.printf("refused by name: %d different methods and features\n", len(r.unsupported))
		if r.verbose {
			for _, s := range slices.Sorted(maps.Keys(r.unsupported)) {
				r.printf("  %6d %s\n", r.unsupported[s], s)
			}
		}
	}
	r.printf("%d passed, %d failed\n", r.passed, r.failed)
}

// clip makes text fit for a terminal.
func clip(b []byte, n int) string {
	text := fmt.Sprintf("%q", b[:min(len(b), n)])
	if len(b) > n {
		text += fmt.Sprintf("... (%d bytes)", len(b))
	}
	return text
}
