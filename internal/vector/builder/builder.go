// Package builder builds segments in a process of their own: a hidden verb of the same
// binary, which gives way to everything else, whose memory goes back to the system with
// it, and whose crash is the error of one operation. The server gives it options and
// rows on its standard input; it writes the file and answers on its standard output.
package builder

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/vector/ann"
)

// Verb of the binary that is a build.
const Verb = "index-build"

// order is what a build is told first, as a line of JSON; rows follow (ann.WriteRows).
type order struct {
	Path    string      `json:"path"`
	Awaited bool        `json:"awaited"` // somebody waits for it
	Options ann.Options `json:"options"`
}

// answer is what it says, as JSON.
type answer struct {
	Built ann.Built `json:"built"`
	Error string    `json:"error,omitempty"`
	Kind  string    `json:"kind,omitempty"` // of the error, where callers tell it apart
	// Priority says why it does not give way, "" where it does.
	Priority string `json:"priority,omitempty"`
}

// kinds of errors that callers tell apart.
func kinds() map[string]error {
	return map[string]error{
		"duplicate": ann.ErrDuplicate, "vector": ann.ErrVector, "damaged": ann.ErrDamaged, "full": syscall.ENOSPC, "quota": syscall.EDQUOT,
	}
}

// Process builds in processes.
type Process struct {
	binary string
	log    *slog.Logger
	env    []string
	small  int // values of vectors, up to which a build is not worth a process

	unheard sync.Once // of a priority that could not be had, which is so for all builds
}

// smallBuild takes some milliseconds, as a process does to begin.
const smallBuild = 256 * 128

// New gives a builder that starts a binary with Verb.
func New(binary string, log *slog.Logger) *Process {
	return &Process{binary: binary, log: log, env: environment(os.Environ()), small: smallBuild}
}

// environment keeps what Go itself reads: a build has no use for the server's secrets.
func environment(all []string) []string {
	return slices.DeleteFunc(all, func(v string) bool { return !strings.HasPrefix(v, "GO") })
}

// Build makes a segment of rows at a path; what nobody waits for gives way further. Few rows,
// of whose number there is a hint, are built here.
func (p *Process) Build(ctx context.Context, path string, rows ann.Rows, o ann.Options, awaited bool) (ann.Built, error) {
	if o.Hint > 0 && o.Hint*o.Dimensions <= p.small {
		return ann.BuildFile(ctx, path, rows, o)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, p.binary, Verb)
	cmd.Args[0], cmd.Env = "tategu", p.env
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	var said words
	cmd.Stdout, cmd.Stderr = &out, &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return ann.Built{}, fmt.Errorf("build a segment: %w", err)
	}
	end, err := start(cmd)
	defer end()
	if err != nil {
		return ann.Built{}, resource.Errorf(codes.Internal, "start a process that builds a segment: %w", err).WithCause(resource.CausePlatform).
			WithHint("the binary that the server was started from must stay where it was, and the machine must have room for one more process")
	}
	fed := feed(in, order{Path: path, Awaited: awaited, Options: o}, rows)
	// Where the process ended early, why it did says more than that it reads no more.
	if fed != nil && !isWrite(fed) {
		stop()
	}
	// Its input stays open until it has ended: it takes the end of it for ours.
	ended := cmd.Wait()
	_ = in.Close() // Wait has done so already, as a rule
	if fed != nil && !isWrite(fed) {
		return ann.Built{}, fed
	}
	if err := ctx.Err(); err != nil {
		return ann.Built{}, err
	}
	a, err := read(out.Bytes(), fed, ended, string(said.text))
	if a.Priority != "" {
		p.unheard.Do(func() {
			p.log.WarnContext(ctx, "builds do not give way as they should", slog.String("error", a.Priority))
		})
	}
	return a.Built, err
}

// start starts a process on a thread that lives until end is called: the kernel ends the
// process with the thread that started it, and those of Go may end at any time.
func start(cmd *exec.Cmd) (end func(), err error) {
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		started <- cmd.Start()
		<-done
	}()
	return func() { close(done) }, <-started
}

func isWrite(err error) bool {
	_, ok := errors.AsType[*ann.WriteError](err)
	return ok
}

// feed writes what a build needs.
func feed(in io.Writer, o order, rows ann.Rows) error {
	w := bufio.NewWriterSize(in, 256<<10)
	if err := json.NewEncoder(w).Encode(o); err != nil {
		return &ann.WriteError{Err: err}
	}
	if err := ann.WriteRows(w, rows, o.Options.Dimensions); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return &ann.WriteError{Err: err}
	}
	return nil
}

// read gives what a process that ended had said.
func read(out []byte, fed, ended error, said string) (a answer, _ error) {
	err := json.Unmarshal(out, &a)
	switch {
	case err == nil && a.Error != "":
		if known := kinds()[a.Kind]; known != nil {
			return a, &told{a.Error, known}
		}
		return a, errors.New(a.Error)
	case err == nil && ended == nil && fed == nil:
		return a, nil
	}
	why := "it answered nothing"
	if ended != nil {
		why = ended.Error()
	}
	if said = strings.TrimSpace(said); said != "" {
		why += ": " + said
	}
	return a, resource.Errorf(codes.Internal, "the process that builds a segment ended early: %s", why).WithCause(resource.CausePlatform).
		WithHint("`signal: killed` is mostly a lack of memory: a build needs about twice the bytes of its vectors; what was there before stays")
}

// told is an error of a build with its text, that is one that callers tell apart.
type told struct {
	text string
	kind error
}

func (t *told) Error() string { return t.text }

func (t *told) Unwrap() error { return t.kind }

// words keeps the beginning of what is written to it: of a panic that says what went wrong.
type words struct{ text []byte }

const mostWords = 4096

func (w *words) Write(b []byte) (int, error) {
	w.text = append(w.text, b[:min(len(b), mostWords-len(w.text))]...)
	return len(b), nil
}
