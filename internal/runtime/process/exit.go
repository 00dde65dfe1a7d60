package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/volume"
)

// explain turns what the wrapper saw into an Exit that says who has to act.
func (in *instance) explain(e exitFile) runtime.Exit {
	exit := runtime.Exit{Code: e.Code, Signal: e.Signal, Ended: e.Ended, Tail: tail(filepath.Join(in.dir, fileOutput))}
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

// failed is the Exit of a workload whose program never ran.
func (in *instance) failed(err error) runtime.Exit {
	exit := runtime.Exit{Code: -1, Ended: in.r.cfg.Now(), Cause: resource.CausePlatform, Message: err.Error(), Tail: tail(filepath.Join(in.dir, fileOutput))}
	if errors.Is(err, errStopped) {
		exit.Code, exit.Cause, exit.Message = 128+15, resource.CauseInput, "stopped"
		return exit
	}
	if e, ok := errors.AsType[*resource.Error](err); ok && e.Cause != "" {
		exit.Cause = e.Cause
	} else if volume.Blocked(err) {
		exit.Cause = resource.CauseResource
	}
	return exit
}

const tailLines, tailBytes = 20, 16 << 10

// tail gives the last lines of the output.
func tail(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // opened for reading
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	from := max(0, st.Size()-tailBytes)
	b := make([]byte, st.Size()-from)
	n, err := f.ReadAt(b, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	text := strings.TrimRight(strings.ToValidUTF8(string(b[:n]), "\uFFFD"), "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	if from > 0 && len(lines) > 1 {
		lines = lines[1:] // cut in the middle
	}
	return lines[max(0, len(lines)-tailLines):]
}
