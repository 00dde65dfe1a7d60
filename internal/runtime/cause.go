package runtime

import (
	"fmt"
	"path"
	"strings"
	"time"

	"tategu/internal/resource"
)

// Refusal is why a machine did not start a program.
type Refusal string

// The refusals that are about the program. Everything else that keeps it from
// starting is an Error of the platform.
const (
	RefusedMissing   Refusal = "missing"   // there is no such file
	RefusedLoader    Refusal = "loader"    // the file is there, what would run it is not
	RefusedDenied    Refusal = "denied"    // it may not be executed by the user
	RefusedFormat    Refusal = "format"    // it is no program for this machine
	RefusedArguments Refusal = "arguments" // the command line and the variables are too long
	RefusedDirectory Refusal = "directory" // the working directory is missing
)

// End is what an adapter saw of the end of a program, before anybody judged it.
type End struct {
	Code    int // resource.NeverStarted when it never ran
	Signal  string
	Stopped bool // Stop was asked for before the end
	Ended   time.Time
	Tail    []string // last lines of output

	Killed bool // the kernel killed for want of memory meanwhile ...
	Own    bool // ... in the workload's own control group, or nowhere
	Memory int64

	Refused Refusal // why it did not start
	Program string  // the file, for Refused
	Loader  string  // what would have run it, for RefusedLoader; may be ""
	User    string  // who would have run it
	Error   string  // why it did not start, where that is the platform's fault
	Image   string  // the container image that it was looked for in; "" = this machine
}

// finding is what is known of a failure: a row of the tables in this package.
type finding struct {
	reason  string // UPPER_SNAKE_CASE
	cause   resource.Cause
	message string
	hint    string
}

// Judge says who has to act on the end of a program and what a person can do. It
// takes a finer class than "user code" only where the evidence leaves no doubt:
// what the kernel counted, the error that the program could not start with, the
// exception that ended Python, a shell's own words.
func Judge(e End) Exit {
	exit := Exit{Code: e.Code, Signal: e.Signal, Ended: e.Ended, Tail: e.Tail}
	var f finding
	switch {
	case e.Stopped && e.Code == 0:
		f.message = "stopped"
	case e.Stopped:
		f = finding{reason: "STOPPED", cause: resource.CauseInput, message: "stopped"}
	case e.Refused != "":
		f = refusal(e)
	case e.Error != "":
		f = finding{reason: "NOT_STARTED", cause: resource.CausePlatform, message: e.Error}
	case e.Code == 0:
		f.message = "ended"
	default:
		f = failure(e)
	}
	exit.Cause, exit.Reason, exit.Message, exit.Hint = f.cause, f.reason, f.message, f.hint
	return exit
}

// failure judges a program that ran.
func failure(e End) finding {
	if e.Killed && (e.Own || e.Signal == "SIGKILL" || e.Code == 128+9) {
		return outOfMemory(e)
	}
	if f, ok := pythonError(e); ok {
		return f
	}
	if f, ok := saidError(e); ok {
		return f
	}
	if f, ok := panicked(e); ok {
		return f
	}
	return signalled(e)
}

func outOfMemory(e End) finding {
	f := finding{reason: "OUT_OF_MEMORY", cause: resource.CauseResource}
	if e.Own {
		f.message = "killed because it used more memory than it asked for"
		if e.Memory > 0 {
			f.message += fmt.Sprintf(" (%d MiB)", e.Memory>>20)
		}
		f.hint = "ask for more (set_memory_limit of a task, a larger machine type), or give it smaller batches"
		return f
	}
	f.message = "killed by the kernel because the machine's memory ran out"
	f.hint = "give it smaller batches, run less at the same time, or use a machine with more memory"
	return f
}

// signalled tells of an end by a signal, the program's own or one that its shell
// passed on as 128+signal.
func signalled(e End) finding {
	f := finding{reason: "EXIT_CODE", cause: resource.CauseUserCode, message: "the program failed"}
	name := e.Signal
	if name == "" {
		name = map[int]string{128 + 4: "SIGILL", 128 + 6: "SIGABRT", 128 + 7: "SIGBUS", 128 + 8: "SIGFPE", 128 + 9: "SIGKILL", 128 + 11: "SIGSEGV", 128 + 15: "SIGTERM"}[e.Code]
	}
	if name == "" {
		if len(e.Tail) == 0 {
			f.hint = "it printed nothing: let it say what it does (set -x in a shell script, logging in Python)"
		}
		return f
	}
	f.reason, f.message = "SIGNAL", "the program was ended by "+name
	switch name {
	case "SIGKILL", "SIGTERM":
		f.reason = "KILLED"
		f.message += ", which tategu did not send"
		f.hint = "memory did not run out: look for who ended it, the program itself or somebody on the machine"
	case "SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE":
		f.reason = "CRASHED"
		f.hint = "native code broke: set PYTHONFAULTHANDLER=1 in its variables to see where, and compare the versions of its libraries"
	case "SIGILL":
		f.reason = "CRASHED"
		f.hint = "it holds instructions that this processor lacks: build it for an older one, or install a package that is"
	}
	return f
}

// refusal judges a program that could not be started as it was given.
func refusal(e End) finding {
	where, see := "on this machine", "name it by its full path, or map the image to a program in images: of tategu.yaml"
	if e.Image != "" {
		where, see = "in the image "+e.Image, "`tategu image inspect "+e.Image+"` shows what the image runs; command and args replace it"
	}
	f := finding{cause: resource.CauseInput}
	switch e.Refused {
	case RefusedMissing:
		f.reason, f.message, f.hint = "COMMAND_NOT_FOUND", fmt.Sprintf("there is no program %q %s", e.Program, where), see
	case RefusedLoader:
		f.reason = "LOADER_NOT_FOUND"
		f.message = fmt.Sprintf("%q is there %s, but not what runs it", e.Program, where)
		f.hint = "link it statically, or use a base image that has the libraries that it was built with"
		if e.Loader != "" {
			f.message += fmt.Sprintf(" (%s)", e.Loader)
			f.hint = "install " + path.Base(strings.Fields(e.Loader)[0]) + " there, or correct the first line of the file"
		}
	case RefusedDenied:
		f.reason = "NOT_EXECUTABLE"
		f.message = fmt.Sprintf("%q may not be executed %s", e.Program, where)
		if e.User != "" {
			f.message += " by the user " + e.User
		}
		f.hint = "give the file the right to be executed (chmod a+x, in the image before it is pushed), or another user"
	case RefusedFormat:
		f.reason = "WRONG_FORMAT"
		f.message = fmt.Sprintf("%q %s is not a program for this machine", e.Program, where)
		f.hint = "build it for this processor; a script needs a first line such as #!/bin/sh"
	case RefusedArguments:
		f.reason, f.message = "ARGUMENTS_TOO_LONG", "the command line and the variables of the program are longer than the system takes"
		f.hint = "hand large values over as artifacts or files in a bucket"
	case RefusedDirectory:
		f.reason, f.message = "DIRECTORY_NOT_FOUND", fmt.Sprintf("the working directory of %q is missing %s", e.Program, where)
		f.hint = "make it in the image"
	}
	return f
}

// Err is a bad end as an error; what says whose end it is and when it came, such
// as "replica 0 of deployed model 5 ended while it served".
func (e Exit) Err(what string) *resource.Error {
	cause := e.Cause
	if cause == "" {
		cause = resource.CauseUserCode
	}
	message := e.Message
	if message == "" {
		message = "the program ended"
	}
	if what != "" {
		message = what + ": " + message
	}
	return &resource.Error{
		Code: cause.CodeFor(e.Reason), Message: message, Hint: e.Hint, Cause: cause, Reason: e.Reason,
		Program: &resource.Program{ExitCode: e.Code, Signal: e.Signal, Tail: e.Tail},
	}
}

// Refuse is the Exit of a program that did not get to run because of err.
func Refuse(err error, at time.Time) Exit {
	e := resource.Outcome(err)
	return Exit{Code: resource.NeverStarted, Cause: e.Cause, Reason: e.Reason, Message: e.Message, Hint: e.Hint, Ended: at}
}
