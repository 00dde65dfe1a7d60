package training_test

import (
	"os"
	"testing"

	"tategu/internal/runtime/process"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == process.Verb {
		os.Exit(process.Main(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}
