package batch_test

import (
	"os"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"tategu/internal/runtime/process"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == process.Verb {
		syscall.Exit(process.Main(os.Args[2:])) // os.Exit of the race detector takes a second
	}
	goleak.VerifyTestMain(m)
}
