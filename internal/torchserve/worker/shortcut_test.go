package worker_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestShortcuts: what is put in the place of the package's functions does what they do.
func TestShortcuts(t *testing.T) {
	t.Parallel()
	python := os.Getenv("TATEGU_TEST_TORCHSERVE")
	if python == "" {
		t.Skip("TATEGU_TEST_TORCHSERVE names no Python with the packages torchserve and torch")
	}
	for _, seed := range []int64{1, time.Now().UnixNano() & 0xffffff} {
		cmd := exec.CommandContext(t.Context(), python, "testdata/equal.py", "shortcut.py", strconv.FormatInt(seed, 10), "150")
		out, err := cmd.CombinedOutput()
		text := strings.TrimSpace(string(out))
		if reason, ok := strings.CutPrefix(text, "skip:"); ok {
			t.Skip(reason)
		}
		if err != nil || !strings.HasSuffix(text, "equal") {
			t.Errorf("seed %d: %v\n%s", seed, err, text)
		}
	}
}
