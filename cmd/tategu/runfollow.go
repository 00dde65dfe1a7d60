package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tategu/internal/api/console"
	"tategu/internal/resource"
	"tategu/internal/training"
)

const (
	// lookEvery is how often the phase of a job that does not run yet is read.
	lookEvery = 200 * time.Millisecond
	// lookFirst is the first pause of who waits for a run, which may be a short one;
	// each next one is twice as long, up to lookEvery.
	lookFirst = 20 * time.Millisecond
	// patience bounds how long a server that is away is waited for: jobs outlive it.
	patience = 2 * time.Minute
)

// runner is one job of run, from its submission to its end.
type runner struct {
	cmd    *cobra.Command
	parent string // projects/P/locations/L
	name   string // of the job, once it is made
	quiet  bool
	as     string // name of the image that is packed; "" = its digest alone

	mu sync.Mutex
	c  *client
}

// say tells a person how it goes.
func (r *runner) say(format string, args ...any) {
	if !r.quiet {
		_, _ = fmt.Fprintf(r.cmd.ErrOrStderr(), "tategu: "+format+"\n", args...) // where to tell that stderr is gone?
	}
}

func (r *runner) print(text string) error {
	_, err := io.WriteString(r.cmd.OutOrStdout(), text)
	return err
}

func (r *runner) client() *client {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.c
}

// submitGrace is how long a signal waits for the answer to a submission.
const submitGrace = 10 * time.Second

// create makes what is run; from then on it runs, whatever becomes of us. A signal
// does not break that off: what was made must be known, or nobody would cancel it.
func (r *runner) create(collection string, m proto.Message) error {
	body, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(r.cmd.Context()))
	defer stop()
	defer context.AfterFunc(r.cmd.Context(), func() {
		select {
		case <-ctx.Done():
		case <-time.After(submitGrace):
			stop()
		}
	})()
	var made struct {
		Name string `json:"name"`
	}
	if err := r.c.call(ctx, http.MethodPost, "/v1beta1/"+r.parent+"/"+collection, json.RawMessage(body), &made); err != nil {
		return err
	}
	r.name = made.Name
	return nil
}

// follow shows the job's output until it has ended.
func (r *runner) follow() error {
	return r.heed(func(ctx context.Context) error {
		told, stopTelling := context.WithCancel(ctx)
		var beside sync.WaitGroup
		defer beside.Wait()
		defer stopTelling()
		beside.Go(func() { r.tell(told) })
		if err := r.copyLog(ctx); err != nil {
			return err
		}
		stopTelling()
		job, err := r.ended(ctx)
		if err != nil {
			return err
		}
		return verdict(job)
	})
}

// heed runs show and minds signals: the first cancels what was made, the second
// leaves it alone and ends show's context.
func (r *runner) heed(show func(context.Context) error) error {
	ctx, leave := context.WithCancel(context.WithoutCancel(r.cmd.Context()))
	defer leave()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if r.cmd.Context().Err() != nil { // it came before we listened
		signals <- os.Interrupt
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	defer leave()
	beside.Go(func() { r.obey(ctx, signals, leave) })
	err := show(ctx)
	if _, ended := errors.AsType[*exit](err); err != nil && !ended && ctx.Err() != nil {
		return &exit{code: exitCancelled, err: fmt.Errorf("left; it goes on by itself: %s", r.name)}
	}
	return err
}

// obey turns signals into a cancellation, then into leaving.
func (r *runner) obey(ctx context.Context, signals <-chan os.Signal, leave func()) {
	select {
	case <-ctx.Done():
		return
	case <-signals:
	}
	r.say("cancelling it; once more leaves it alone")
	cancelled := make(chan error, 1)
	go func() { // ends with the request, which ends with ctx
		cancelled <- r.again(ctx, func() error {
			return r.client().call(ctx, http.MethodPost, "/v1/"+r.name+":cancel", struct{}{}, nil)
		})
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			leave()
			return
		case err := <-cancelled:
			if err != nil && ctx.Err() == nil {
				r.say("cancel %s: %v", r.name, err)
			}
		}
	}
}

// again repeats f while the server is away. It may come back at another address.
func (r *runner) again(ctx context.Context, f func() error) error {
	end := time.Now().Add(patience)
	for told := false; ; told = true {
		err := f()
		if err == nil || !away(err) || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		if !told {
			r.say("the server does not answer; the job goes on without it, waiting")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
		if c, err := connect(r.cmd); err == nil {
			r.mu.Lock()
			r.c = c
			r.mu.Unlock()
		}
	}
}

func away(err error) bool {
	if a, ok := errors.AsType[*answerError](err); ok {
		return a.status == http.StatusServiceUnavailable || a.status == http.StatusBadGateway
	}
	return resource.CodeOf(err) == codes.Unavailable || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// errOutput is of an output that nobody reads any more.
var errOutput = errors.New("the output cannot be written")

// copyLog writes the program's output as it comes, going on where a connection broke.
func (r *runner) copyLog(ctx context.Context) error {
	offset := int64(0)
	for {
		err := r.again(ctx, func() error {
			q := url.Values{"resource": {r.name}, "workload": {training.ChiefWorkload(r.name)}, "follow": {"1"}, "offset": {strconv.FormatInt(offset, 10)}}
			body, err := r.client().do(ctx, http.MethodGet, "/tategu/v1/logs", q, nil)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }() // read to its end, or given up
			n, err := io.Copy(output{r.cmd.OutOrStdout()}, body)
			offset += n
			if err != nil && !errors.Is(err, errOutput) && ctx.Err() == nil {
				return resource.Errorf(codes.Unavailable, "the log broke off: %w", err)
			}
			return err
		})
		if errors.Is(err, errOutput) {
			return fmt.Errorf("%w; the job goes on: %s", err, r.name)
		}
		if err != nil {
			return err
		}
		// A server that goes down ends its answers as if all were said.
		job, err := r.get(ctx)
		if err != nil || training.Finished(job.State) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

type output struct{ io.Writer }

func (o output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errOutput, err)
	}
	return n, err
}

func (r *runner) get(ctx context.Context) (*pb.CustomJob, error) {
	job := &pb.CustomJob{}
	var text json.RawMessage
	if err := r.again(ctx, func() error { return r.client().call(ctx, http.MethodGet, "/v1/"+r.name, nil, &text) }); err != nil {
		return nil, err
	}
	return job, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, job)
}

// ended gives the job once it has ended.
func (r *runner) ended(ctx context.Context) (*pb.CustomJob, error) {
	for {
		job, err := r.get(ctx)
		if err != nil || training.Finished(job.State) {
			return job, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// tell says what the job waits for until it runs.
func (r *runner) tell(ctx context.Context) {
	last := ""
	for {
		workloads, err := r.workloads(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil && len(workloads) > 0 {
			w := workloads[0]
			line := phase(w)
			if line != last {
				r.say("%s", line)
			}
			last = line
			if w.Phase == "RUNNING" && w.Address != "" {
				r.say("its port is http://%s, on the server's machine", w.Address)
			}
			if w.Phase != "QUEUED" && w.Phase != "PREPARING" {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
		}
	}
}

// workloads lists the programs of the job that the server's machine knows.
func (r *runner) workloads(ctx context.Context) ([]console.Workload, error) {
	var reply struct {
		Workloads []console.Workload `json:"workloads"`
	}
	err := r.client().call(ctx, http.MethodGet, "/tategu/v1/workloads?"+url.Values{"resource": {r.name}}.Encode(), nil, &reply)
	return reply.Workloads, err
}

// phase is a line for people.
func phase(w console.Workload) string {
	switch {
	case w.Phase == "QUEUED" && w.Queue != nil:
		line := fmt.Sprintf("queued, place %d of %d", w.Queue.Position, w.Queue.Length)
		if w.Queue.Waits != "" {
			line += ": waits for " + w.Queue.Waits
		}
		return line
	case w.Phase == "PREPARING" && w.Message != "":
		return "preparing: " + w.Message
	}
	return strings.ToLower(w.Phase)
}

// verdict is the end of a job as an exit code.
func verdict(job *pb.CustomJob) error {
	message, _, _ := strings.Cut(job.GetError().GetMessage(), "\nlast lines of its output:") // they were shown
	failed := errors.New(strings.TrimPrefix(message, "replica "+training.ChiefWorkload(job.Name)+": "))
	switch {
	case job.State == pb.JobState_JOB_STATE_SUCCEEDED:
		return nil
	case job.State == pb.JobState_JOB_STATE_CANCELLED:
		return &exit{code: exitCancelled, err: errors.New("the job was cancelled")}
	case codes.Code(job.GetError().GetCode()) == codes.DeadlineExceeded:
		return &exit{code: exitTimeout, err: failed}
	}
	for _, d := range job.GetError().GetDetails() {
		info := &errdetails.ErrorInfo{}
		if d.UnmarshalTo(info) != nil {
			continue
		}
		if code, err := strconv.Atoi(info.Metadata["exitCode"]); err == nil && code > 0 && code < 256 {
			return &exit{code: code, err: failed}
		}
	}
	return &exit{code: exitOurs, err: failed}
}
