package pipeline

import (
	"strings"

	"tategu/internal/runtime"
)

// asksPort reports a variable that names the port of its program, as those of
// custom jobs may.
func asksPort(w runtime.Workload) bool {
	for _, v := range w.Env {
		if strings.Contains(v, "$(PORT)") {
			return true
		}
	}
	return false
}
