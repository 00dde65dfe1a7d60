package gcpc

import (
	"encoding/json"

	"tategu/internal/resource"
)

// FaultFile is where a launcher says why it failed, beside the executor output
// (container/utils/error_surfacing.py).
const FaultFile = "executor_error.json"

// Fault is what the file holds: the component's own field, and what tategu adds.
type Fault struct {
	Message  string         `json:"errorMessage"`
	Cause    resource.Cause `json:"cause,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Hint     string         `json:"hint,omitempty"`
	ExitCode int            `json:"exitCode,omitempty"` // of the program that failed; 0 = it is not about one
	Tail     []string       `json:"tail,omitempty"`     // the last lines of its output
}

// FaultOf takes an error apart.
func FaultOf(err error) Fault {
	e := resource.Outcome(err)
	f := Fault{Message: e.Message, Cause: e.Cause, Reason: e.Reason, Hint: e.Hint}
	if p := e.Program; p != nil {
		f.Tail = p.Tail
		if p.ExitCode != resource.NeverStarted {
			f.ExitCode = p.ExitCode
		}
	}
	return f
}

// ParseFault reads the file; what is not one is nil.
func ParseFault(text []byte) *Fault {
	f := &Fault{}
	if len(text) == 0 || json.Unmarshal(text, f) != nil || f.Message == "" {
		return nil
	}
	return f
}
