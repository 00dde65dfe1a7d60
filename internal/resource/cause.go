package resource

import (
	"errors"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
)

// Cause says at a glance who has to act on a failure (design decision 23).
type Cause string

// The classes of cause, from the caller's side to ours.
const (
	CauseInput      Cause = "input"      // the request or the data given
	CauseUserCode   Cause = "user code"  // the program of a task or a replica
	CauseModel      Cause = "model"      // the model file
	CauseResource   Cause = "resource"   // cores, memory, accelerators, disk
	CauseDependency Cause = "dependency" // a package index, a registry, another service
	CausePlatform   Cause = "platform"   // tategu itself
)

// ReasonDenied is the reason of a job, task or deployment that may not do what it
// needs to: its status code is PermissionDenied.
const ReasonDenied = "PERMISSION_DENIED"

// CodeFor is Code, but for the reasons that have a code of their own.
func (c Cause) CodeFor(reason string) codes.Code {
	if reason == ReasonDenied {
		return codes.PermissionDenied
	}
	return c.Code()
}

// Code is the status code of a job, task or deployment that failed by the cause.
func (c Cause) Code() codes.Code {
	switch c {
	case CauseInput:
		return codes.InvalidArgument
	case CauseUserCode, CauseModel:
		return codes.FailedPrecondition
	case CauseResource:
		return codes.ResourceExhausted
	case CauseDependency:
		return codes.Unavailable
	default:
		return codes.Internal
	}
}

// cause is the class of an error that does not name its own: its code tells whose
// turn it is. What was cancelled has none.
func (e *Error) cause() Cause {
	if e.Cause != "" {
		return e.Cause
	}
	switch e.Code {
	case codes.OK, codes.Canceled:
		return ""
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.OutOfRange, codes.Aborted,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return CauseInput
	case codes.ResourceExhausted:
		return CauseResource
	default:
		return CausePlatform
	}
}

// NeverStarted is the exit code of a program that did not run at all.
const NeverStarted = -1

// Program is how the program ended that an error is about.
type Program struct {
	ExitCode int      // 128+signal when killed; NeverStarted
	Signal   string   // "SIGKILL"; "" = none
	Tail     []string // last lines of its output
}

// facts are what stands in brackets behind the message.
func (p *Program) facts(cause Cause) string {
	var facts []string
	if p.ExitCode != NeverStarted {
		facts = append(facts, "exit code "+strconv.Itoa(p.ExitCode))
	}
	if p.Signal != "" {
		facts = append(facts, p.Signal)
	}
	if cause != "" {
		facts = append(facts, "cause: "+string(cause))
	}
	if len(facts) == 0 {
		return ""
	}
	return " (" + strings.Join(facts, ", ") + ")"
}

func (p *Program) annotate(metadata map[string]string) {
	if p.ExitCode != NeverStarted {
		metadata["exitCode"] = strconv.Itoa(p.ExitCode)
	}
	if p.Signal != "" {
		metadata["signal"] = p.Signal
	}
}

// maxTail bounds the quoted output, the end of which says most.
const maxTail = 4 << 10

func (p *Program) lines() string {
	text := strings.Join(p.Tail, "\n")
	if text == "" {
		return ""
	}
	if len(text) > maxTail {
		text = strings.ToValidUTF8(text[len(text)-maxTail:], "")
		if _, whole, ok := strings.Cut(text, "\n"); ok {
			text = whole
		}
	}
	return "\nlast lines of its output:\n" + text
}

// Outcome is err as the error of something that has ended badly: a job, a task, a
// deployment. Whatever err was, it has a cause then, and its text names it; a
// foreign error is the platform's. Nil stays nil.
func Outcome(err error) *Error {
	if err == nil {
		return nil
	}
	inner, ok := errors.AsType[*Error](err)
	if !ok {
		return &Error{
			Code: codes.Internal, Message: err.Error(), Cause: CausePlatform, Program: &Program{ExitCode: NeverStarted}, Err: err,
			Hint: "`tategu status` shows what troubles the server, and its log says more",
		}
	}
	e := *inner
	e.Err = err
	// What wrapping added to the text goes before the message, the facts behind it.
	if added, ok := strings.CutSuffix(err.Error(), inner.Error()); ok {
		e.Message = added + inner.Message
	} else {
		e.Message = err.Error()
	}
	e.Cause = inner.cause()
	if e.Program == nil && e.Cause != "" {
		e.Program = &Program{ExitCode: NeverStarted}
	}
	return &e
}

// WithLogs returns a copy of e whose next step is also to read all the output of
// what is called so; without any output there is nothing to read.
func (e *Error) WithLogs(of string) *Error {
	if e.Program == nil || len(e.Program.Tail) == 0 {
		return e
	}
	return e.WithNext("`tategu logs " + of + "` shows its whole output")
}

// WithNext returns a copy of e with a further step after those it has.
func (e *Error) WithNext(step string) *Error {
	c := *e
	if c.Hint != "" {
		c.Hint += "; "
	}
	c.Hint += step
	return &c
}
