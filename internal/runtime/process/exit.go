package process

import (
	"path/filepath"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/workload"
)

// explain turns what the wrapper saw into an Exit that says who has to act.
func (in *instance) explain(e wrapper.Exit) runtime.Exit {
	return runtime.Judge(runtime.End{
		Code: e.Code, Signal: e.Signal, Stopped: e.Stopped, Ended: e.Ended, Tail: workload.Tail(filepath.Join(in.dir, fileOutput)),
		Killed: e.OOM, Own: e.Counted, Memory: in.rec.Workload.Resources.MemoryBytes,
		Refused: refusals()[e.Refused], Program: e.Program, Loader: e.Loader, User: e.User, Error: e.Error, Image: e.Image,
	})
}

// refusals are the wrapper's words in those of the port, which it does not import.
func refusals() map[wrapper.Refusal]runtime.Refusal {
	return map[wrapper.Refusal]runtime.Refusal{
		wrapper.RefusedMissing: runtime.RefusedMissing, wrapper.RefusedLoader: runtime.RefusedLoader, wrapper.RefusedDenied: runtime.RefusedDenied,
		wrapper.RefusedFormat: runtime.RefusedFormat, wrapper.RefusedArguments: runtime.RefusedArguments, wrapper.RefusedDirectory: runtime.RefusedDirectory,
	}
}
