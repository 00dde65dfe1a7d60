package torchserve_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

// waits writes down what it begins with; "until FILE" lasts until the file is there.
const waits = `
import os, time

def handle(data, context):
    if not data:
        return None
    word = data[0]["body"].decode()
    with open("NOTES", "a") as f:
        f.write(word + "\n")
    while word.startswith("until ") and not os.path.exists(word[6:]):
        time.sleep(0.005)
    return [word]
`

// once fails the test unless a file has each line once.
func once(t *testing.T, file string, want int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for word := range strings.Lines(string(text)) {
		times[word]++
	}
	for word, n := range times {
		if n != 1 {
			t.Errorf("%q was run %d times", word, n)
		}
	}
	if len(times) != want {
		t.Errorf("%d requests were run, want %d", len(times), want)
	}
}

func (w *world) waiting(t *testing.T, workers int, patience time.Duration) (notes string) {
	t.Helper()
	notes = filepath.Join(t.TempDir(), "notes")
	writeArchive(t, w.store, "m.mar", map[string]string{"handler.py": strings.ReplaceAll(waits, "NOTES", notes), "MAR-INF/MANIFEST.json": manifest("m", "1.0", nil)})
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &workers, ResponseTimeout: &patience, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	return notes
}

// crowd has clients ask for many words at once and wants each back.
func (w *world) crowd(t *testing.T, name string, clients, each int) *sync.WaitGroup {
	t.Helper()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				word := fmt.Sprintf("%s-%d-%d", name, c, i)
				if got, err := w.ask(t.Context(), "m", word); err != nil || got != word {
					t.Errorf("%s: %q, %v", word, got, err)
				}
			}
		})
	}
	return &wg
}

// TestTakenBack: what was written to a worker ahead of an answer that takes long is run
// by another worker meanwhile, once.
func TestTakenBack(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	notes := w.waiting(t, 2, 5*time.Minute)
	const rounds, clients, each = 15, 12, 15
	folder := t.TempDir()
	for round := range rounds {
		file := filepath.Join(folder, strconv.Itoa(round))
		first := w.crowd(t, fmt.Sprint("first", round), clients, each) // it is known to be quick, and has a queue
		long := make(chan error, 1)
		go func() {
			_, err := w.ask(t.Context(), "m", "until "+file)
			long <- err
		}()
		second := w.crowd(t, fmt.Sprint("second", round), clients, each)
		first.Wait()
		second.Wait()
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := <-long; err != nil {
			t.Error(err)
		}
	}
	once(t, notes, rounds*(2*clients*each+1))
}

// TestHungAhead: a worker that hangs costs its own request and no other, though some may
// have been written to it.
func TestHungAhead(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	notes := w.waiting(t, 2, 8*time.Second)
	const clients, each = 12, 15
	first := w.crowd(t, "first", clients, each)
	hung := make(chan error, 1)
	go func() {
		_, err := w.ask(t.Context(), "m", "until "+filepath.Join(t.TempDir(), "never"))
		hung <- err
	}()
	second := w.crowd(t, "second", clients, each)
	first.Wait()
	second.Wait()
	select {
	case err := <-hung:
		t.Errorf("what hangs is done before the others: %v", err)
	default:
		wantCode(t, <-hung, 500, "responseTimeout")
	}
	w.want(t, "m", "afterwards", "afterwards")
	once(t, notes, 2*clients*each+2)
}

// TestTakenBackFromOne: the only worker takes them after the long one, and a client that
// leaves meanwhile has its request out of the queue.
func TestTakenBackFromOne(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	notes := w.waiting(t, 1, 5*time.Minute)
	const clients, each = 8, 20
	folder := t.TempDir()
	for round := range 5 {
		file := filepath.Join(folder, strconv.Itoa(round))
		first := w.crowd(t, fmt.Sprint("first", round), clients, each)
		long := make(chan error, 1)
		go func() {
			_, err := w.ask(t.Context(), "m", "until "+file)
			long <- err
		}()
		second := w.crowd(t, fmt.Sprint("second", round), clients, each)
		eventually(t, func() bool {
			text, err := os.ReadFile(notes)
			return err == nil && strings.Contains(string(text), "until "+file+"\n")
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.ask(ctx, "m", fmt.Sprint("left", round)); err == nil {
			t.Error("who has left has an answer")
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		first.Wait()
		second.Wait()
		if err := <-long; err != nil {
			t.Error(err)
		}
	}
	text, err := os.ReadFile(notes)
	if err != nil || strings.Contains(string(text), "left") {
		t.Errorf("the request of who has left is run: %v", err)
	}
	once(t, notes, 5*(2*clients*each+1))
}
