package torchserve_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tategu/internal/torchserve"
)

// notes writes down what it begins with, and may die of it.
const notes = `
import os, signal

def handle(data, context):
    if not data:
        return None
    word = data[0]["body"].decode()
    with open("NOTES", "a") as f:
        f.write(word + "\n")
    if word.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    return [word]
`

// TestOnce: a worker that dies takes its request with it and no other, and none is run
// twice, though several were written to it.
func TestOnce(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	file := filepath.Join(t.TempDir(), "notes")
	writeArchive(t, w.store, "m.mar", map[string]string{"handler.py": strings.ReplaceAll(notes, "NOTES", file), "MAR-INF/MANIFEST.json": manifest("m", "1.0", nil)})
	one := 1
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &one, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	const clients, each, deaths = 16, 40, 4
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				word := fmt.Sprintf("%d-%d", c, i)
				if c < deaths && i == each/2 {
					word = "die-" + word
				}
				got, err := w.ask(t.Context(), "m", word)
				if dies := strings.HasPrefix(word, "die"); dies != (err != nil) || !dies && got != word {
					t.Errorf("%s: %q, %v", word, got, err)
				}
			}
		})
	}
	wg.Wait()
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
	if len(times) != clients*each {
		t.Errorf("%d requests were run, want %d", len(times), clients*each)
	}
}
