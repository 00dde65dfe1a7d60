package runtime

import (
	"regexp"
	"strings"

	"tategu/internal/resource"
)

// panicked judges a program in Rust or Go that ended by a panic: where, and by what
// words, as the standard libraries write it. Whatever caused it, the program's own
// code asked for this end.
func panicked(e End) (finding, bool) {
	const rustCode, abortCode, goCode = 101, 128 + 6, 2
	switch e.Code {
	case rustCode, abortCode: // panic = "abort" ends by SIGABRT
		return rustPanic(e.Tail)
	case goCode:
		return goPanic(e.Tail)
	}
	return finding{}, false
}

// rustPanic finds "thread 'main' panicked at src/main.rs:3:5:" with its text on the
// next line; before Rust 1.73 the text stood in front, in quotes.
func rustPanic(tail []string) (finding, bool) {
	head := regexp.MustCompile(`^thread '[^']*' (?:\(\d+\) )?panicked at (.+):$`)
	old := regexp.MustCompile(`^thread '[^']*' panicked at '(.*)', (\S+:\d+:\d+)$`)
	for i, line := range tail { // the first: others follow from it
		where, text := "", ""
		if m := head.FindStringSubmatch(line); m != nil && i+1 < len(tail) {
			where, text = m[1], tail[i+1]
		} else if m := old.FindStringSubmatch(line); m != nil {
			where, text = m[2], m[1]
		} else {
			continue
		}
		f := finding{reason: "PANIC", cause: resource.CauseUserCode, message: "it panicked at " + short(where) + ": " + short(text)}
		for _, more := range tail[i:] {
			if strings.HasPrefix(more, "note: run with `RUST_BACKTRACE=1`") {
				f.hint = "RUST_BACKTRACE=1 among its variables (set_env_variable of a task) shows the calls that led there"
			}
		}
		return f, true
	}
	return finding{}, false
}

// goPanic finds "panic: text", and the first place in a file below it.
func goPanic(tail []string) (finding, bool) {
	place := regexp.MustCompile(`^\t(\S+\.go:\d+)`)
	text, running := "", false
	for _, line := range tail {
		if after, ok := strings.CutPrefix(line, "panic: "); ok && text == "" {
			text = after
		}
		running = running || strings.HasPrefix(line, "goroutine ")
		m := place.FindStringSubmatch(line)
		if text == "" || !running || m == nil || strings.Contains(m[1], "/src/runtime/panic.go:") {
			continue
		}
		return finding{reason: "PANIC", cause: resource.CauseUserCode, message: "it panicked at " + short(m[1]) + ": " + short(text)}, true
	}
	return finding{}, false
}
