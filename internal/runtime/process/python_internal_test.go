package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestInterpreterOnce: many that ask for one Python at the same time, as after a
// restart, look for it once. When the one that looks is stopped, another one does.
func TestInterpreterOnce(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not on this machine")
	}
	dir := t.TempDir()
	gate, calls, uv := filepath.Join(dir, "gate"), filepath.Join(dir, "calls"), filepath.Join(dir, "uv")
	if err := exec.CommandContext(t.Context(), "mkfifo", gate).Run(); err != nil {
		t.Skip(err)
	}
	text := fmt.Sprintf("#!/bin/sh\necho call >>'%s'\nread -r line <'%s'\necho '%s'\n", calls, gate, python)
	if err := os.WriteFile(uv, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	e := &environments{uv: uv, interpreters: map[string]interpreter{}}
	const askers = 20
	said := make(chan string, askers*3)
	var all sync.WaitGroup
	ask := func(ctx context.Context, want error) {
		all.Go(func() {
			found, err := e.interpreter(ctx, wish{}, func(s string) { said <- s })
			if !errors.Is(err, want) || want == nil && found.version == "" {
				t.Errorf("%+v, %v, want %v", found, err, want)
			}
		})
	}
	first, stop := context.WithCancel(t.Context())
	ask(first, context.Canceled)
	count := func() int {
		b, err := os.ReadFile(calls)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Count(string(b), "call")
	}
	for count() == 0 {
		if t.Context().Err() != nil {
			t.Fatal("nobody looks")
		}
	}
	for range askers {
		ask(t.Context(), nil)
	}
	for range askers {
		<-said // all of them wait
	}
	stop()
	for range askers - 1 {
		<-said // but for one, which looks now
	}
	f, err := os.OpenFile(gate, os.O_WRONLY, 0) // returns once it is read
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if n := count(); n != 2 {
		t.Errorf("%d looked, want one, and one more after the first was stopped", n)
	}
}
