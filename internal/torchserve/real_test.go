package torchserve_test

import "os"

// asyncHandlerKind says which worker runs.
func asyncHandlerKind() string {
	if os.Getenv("TATEGU_TEST_TORCHSERVE") != "" {
		return "real"
	}
	return "stand-in"
}
