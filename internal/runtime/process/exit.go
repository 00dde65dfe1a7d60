package process

import (
	"fmt"
	"path/filepath"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/workload"
)

// endFile is end.json. It holds the record as well, so that it stands for itself
// where a power loss has taken record.json.
type endFile struct {
	runtime.Exit
	Record *accepted // nil = by a server that kept it in record.json alone
}

// Whole implements record.Whole.
func (e *endFile) Whole() bool { return !e.Ended.IsZero() }

// explain turns what the wrapper saw into an Exit that says who has to act.
func (in *instance) explain(e wrapper.Exit) runtime.Exit {
	exit := runtime.Exit{Code: e.Code, Signal: e.Signal, Ended: e.Ended, Tail: workload.Tail(filepath.Join(in.dir, fileOutput))}
	switch {
	case e.Stopped:
		exit.Message = "stopped"
		if exit.Code != 0 {
			exit.Cause = resource.CauseInput
		}
	case e.Error != "" && e.NotFound && e.Image != "":
		exit.Cause = resource.CauseInput
		exit.Message = e.Error + "; the program must exist in the image " + e.Image
	case e.Error != "" && e.NotFound:
		exit.Cause = resource.CauseInput
		exit.Message = e.Error + "; the program must exist on this machine: name it by its full path, or map the image in images: of tategu.yaml"
	case e.Error != "":
		exit.Cause, exit.Message = resource.CausePlatform, e.Error
	case e.Code == 0:
		exit.Message = "ended"
	case e.OOM && e.Counted:
		exit.Cause = resource.CauseResource
		exit.Message = "killed because it used more memory than it asked for; ask for more (resources, machine type), or for a smaller batch"
	case e.OOM && (e.Signal == "SIGKILL" || e.Code == 137):
		exit.Cause = resource.CauseResource
		exit.Message = "killed by the kernel because memory ran out; ask for a smaller batch or run on a machine with more memory"
	case e.Signal != "":
		exit.Cause = resource.CauseUserCode
		exit.Message = "the program was ended by " + e.Signal
	default:
		exit.Cause = resource.CauseUserCode
		exit.Message = fmt.Sprintf("the program ended with exit code %d", e.Code)
	}
	return exit
}
