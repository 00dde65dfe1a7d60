package batch_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"tategu/internal/runtime/process"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == process.Verb {
		os.Exit(process.Main(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}
