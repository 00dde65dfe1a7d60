package main

import (
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// waitFor polls for a file: the server is another process, so there is no event to wait for.
func waitFor(ts *testscript.TestScript, path string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%s did not appear in 30 s", path)
		}
	}
}
