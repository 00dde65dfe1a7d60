package docker

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/oom"
	"tategu/internal/runtime/workload"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// explain turns what the engine saw into an Exit that says who has to act.
func (in *instance) explain(s containerState) runtime.Exit {
	end := in.end(s.ExitCode)
	if !s.FinishedAt.IsZero() && s.FinishedAt.Unix() > 0 { // Go's and Unix' ways to say never
		end.Ended = s.FinishedAt
	}
	end.Error = s.Error
	// Podman does not always tell, and then only the machine's count is left.
	end.Killed, end.Own = s.OOMKilled || oom.Kills() > in.container.OOMs, s.OOMKilled
	if s.ExitCode > 128 {
		end.Signal = unix.SignalName(syscall.Signal(s.ExitCode - 128))
	}
	if why := notExecuted(s.ExitCode, end.Tail); why != "" && !end.Stopped {
		end.Code, end.Refused = resource.NeverStarted, why
	}
	return runtime.Judge(end)
}

func (in *instance) end(code int) runtime.End {
	w := in.rec.Workload
	return runtime.End{
		Code: code, Stopped: in.stopping(), Ended: in.r.cfg.Now(), Tail: workload.Tail(in.path(workload.Output)), Memory: w.Resources.MemoryBytes,
		Image: w.Image, Program: in.container.Program,
	}
}

// failed is the Exit of a container that was not started.
func (in *instance) failed(err error) runtime.Exit {
	refused, ok := errors.AsType[*refusedError](err)
	if !ok {
		return in.place().Failed(err)
	}
	end := in.end(resource.NeverStarted)
	end.Stopped, end.Refused = false, refused.why
	return runtime.Judge(end)
}

// refusedError is an engine's error that is about the program.
type refusedError struct {
	why runtime.Refusal
	err error
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// notExecuted recognises the last words of the engines' init programs, tini and
// catatonit, that could not start the program: the container had begun by then. ""
// = the program ran.
func notExecuted(code int, tail []string) runtime.Refusal {
	if code != 126 && code != 127 && code != 1 || len(tail) == 0 {
		return ""
	}
	m := regexp.MustCompile(`^(?:\[FATAL tini \(\d+\)\]|ERROR \(catatonit:\d+\):) (.*)$`).FindStringSubmatch(tail[len(tail)-1])
	if m == nil {
		return ""
	}
	return refusal(m[1])
}

// refusal reads why a program was not executed from the text of an error.
func refusal(text string) runtime.Refusal {
	text = strings.ToLower(text)
	for _, r := range []struct {
		sign string
		why  runtime.Refusal
	}{
		{"permission denied", runtime.RefusedDenied},
		{"exec format error", runtime.RefusedFormat},
		{"argument list too long", runtime.RefusedArguments},
		{"not found", runtime.RefusedMissing},
		{"no such file or directory", runtime.RefusedMissing},
		{"not a directory", runtime.RefusedMissing},
	} {
		if strings.Contains(text, r.sign) {
			return r.why
		}
	}
	return ""
}

// lacksInit recognises both engines' ways to say so.
func lacksInit(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	return strings.Contains(text, "docker-init") || strings.Contains(text, "container-init binary")
}

// startError says who has to act when a container cannot be made or started: the
// engines give no code for it.
func startError(w runtime.Workload, err error) error {
	if status(err) == 0 {
		return err // the engine is away, or the context has ended
	}
	text := strings.ToLower(err.Error())
	has := func(signs ...string) bool {
		return slices.ContainsFunc(signs, func(s string) bool { return strings.Contains(text, s) })
	}
	e := resource.Errorf(codes.FailedPrecondition, "start a container of image %s: %w", w.Image, err).WithResource(w.Image)
	switch {
	case lacksInit(err):
		return err
	case has(`exec: "`, "executable file", "open executable") && !has("mount") && refusal(text) != "":
		return &refusedError{why: refusal(text), err: e}
	case has("chdir to cwd"):
		return &refusedError{why: runtime.RefusedDirectory, err: e}
	case has("could not select device driver", "nvidia"):
		return e.WithCause(resource.CauseResource).WithHint("install the NVIDIA container toolkit for the container engine")
	case has("unable to find user", "unable to find group", "no matching entries"):
		return e.WithCause(resource.CauseInput).WithHint("the user that the image names must exist in it")
	case has("no such image", "image not known"):
		return e.WithCause(resource.CauseInput).WithHint("the image was removed meanwhile; bring it again")
	}
	return e.WithCause(resource.CausePlatform).WithHint("see the container engine's own log")
}
