// Command wrapper is what the server starts around every program on Linux. It is
// packed into the tategu binary by `make build` and never installed by itself: a
// program of 2 MB starts in a tenth of the time of one with all of the API in it.
package main

import (
	"os"

	"tategu/internal/runtime/process/wrapper"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] != wrapper.Verb {
		os.Exit(2)
	}
	os.Exit(wrapper.Main(os.Args[2:]))
}
