package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"

	"tategu/internal/load"
	"tategu/internal/resource"
)

// loader is one `tategu load`.
type loader struct {
	config      load.Config
	instances   string  // file
	body        string  // file, for rawPredict
	contentType string  // of that
	wanted      float64 // requests a second that the deployment is to take
	report      string  // file: a page
	plot        string  // file: a picture
	asJSON      bool
	apply       bool

	client   *client
	endpoint *pb.Endpoint
	out      io.Writer
	begun    bool // the table
}

func loadCommand() *cobra.Command {
	l := &loader{}
	cmd := &cobra.Command{
		Use: "load ENDPOINT", Short: "Find how much an endpoint takes, and how many replicas a rate needs", Args: cobra.ExactArgs(1),
		Long: `load sends predictions to an endpoint at growing rates, whether or not earlier ones were
answered, and counts each one's time from when it was due. It ends with the knee: the
highest rate at which 99 of 100 requests are answered well and within the limit, and the
endpoint does not fall behind. The limit is --p99, or three times what a caller who is
alone waits. Nothing but the endpoint gets requests; Ctrl-C ends with what is known.`,
		Example: `  tategu load my-endpoint --instances rows.jsonl
  tategu load my-endpoint --instances rows.jsonl --p99 50ms --for 400 --apply
  tategu load my-endpoint --body photo.jpg --content-type image/jpeg --report load.html --plot load.png`,
		RunE: func(cmd *cobra.Command, args []string) error { return l.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&l.instances, "instances", "", "file of instances for predict: JSON Lines, an array, or a request")
	f.StringVar(&l.body, "body", "", "file that is sent to rawPredict as it is, instead")
	f.StringVar(&l.contentType, "content-type", "application/octet-stream", "of --body")
	f.DurationVar(&l.config.Limit, "p99", 0, "that 99 of 100 requests may take (default: 3 times that of a caller who is alone)")
	f.Float64Var(&l.config.From, "from", 0, "requests a second to begin with (default: half of what one caller gets)")
	f.Float64Var(&l.config.MaxRate, "max-rate", 20000, "requests a second that are never exceeded")
	f.DurationVar(&l.config.Duration, "duration", 5*time.Minute, "end after that, with what is known")
	f.DurationVar(&l.config.Step, "step", 3*time.Second, "how long each rate is tried")
	f.DurationVar(&l.config.Timeout, "timeout", 30*time.Second, "longest wait for an answer")
	f.Float64Var(&l.config.Precision, "precision", 0.03, "share that the knee is known to")
	f.BoolVar(&l.config.Poisson, "poisson", false, "requests come at random times instead of evenly")
	f.Float64Var(&l.wanted, "for", 0, "requests a second that the deployment is to take: how many replicas it needs")
	f.BoolVar(&l.apply, "apply", false, "with --for: set the replica counts of the deployed model so")
	f.StringVar(&l.report, "report", "", "write a report (.html): a plot of p50 and p99 by rate, what was found, every step")
	f.StringVar(&l.plot, "plot", "", "write the plot alone: a picture of 1200 x 700 pixels (.png), or one of any size (.svg)")
	f.BoolVar(&l.asJSON, "json", false, "print the result as JSON, and the table on standard error")
	f.String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.ValidArgsFunction = completeEndpoints
	return cmd
}

func (l *loader) run(cmd *cobra.Command, name string) error {
	ctx := cmd.Context()
	if err := l.check(); err != nil {
		return err
	}
	var err error
	if l.client, l.endpoint, err = connectTo(cmd, name); err != nil {
		return err
	}
	l.out = cmd.OutOrStdout()
	if l.asJSON {
		l.out = cmd.ErrOrStderr()
	}
	target, sizes, err := l.targets()
	if err != nil {
		return err
	}
	defer target.Close()
	l.config.Replicas, l.config.Show = l.replicas, l.show
	result, err := load.Run(ctx, target, l.config)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return l.finish(ctx, cmd.OutOrStdout(), result, sizes)
}

// finish tells what was found, in all the ways asked for, and applies it.
func (l *loader) finish(ctx context.Context, out io.Writer, result *load.Result, sizes func(context.Context, time.Duration) ([]load.Size, error)) error {
	measured, err := sizes(ctx, result.Limit)
	if err != nil && ctx.Err() == nil {
		return err
	}
	advice := result.Advise(l.wanted, measured)
	words := l.advise(result, advice, measured)
	l.say("")
	for _, line := range append(result.Conclude(), words...) {
		l.say(line)
	}
	if err := l.write(result, words); err != nil {
		return err
	}
	if l.asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(load.Summarize(result, advice, measured)); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return &exit{code: exitCancelled}
	}
	if l.apply {
		return l.set(ctx, result, advice)
	}
	return nil
}

func (l *loader) check() error {
	switch {
	case l.instances == "" && l.body == "":
		return resource.Invalid("instances", "there is nothing to send").WithHint("name a file of instances by --instances, or of a body for rawPredict by --body")
	case l.instances != "" && l.body != "":
		return resource.Invalid("body", "--instances and --body do not go together: the first is for predict, the second for rawPredict")
	case l.apply && !(l.wanted > 0):
		return resource.Invalid("apply", "--apply needs --for RATE: how many requests a second the deployment is to take")
	case !(l.config.MaxRate > 0), l.config.From < 0, l.wanted < 0, l.config.Duration <= 0, l.config.Step <= 0, l.config.Timeout <= 0, l.config.Limit < 0:
		return resource.Invalid("max-rate", "rates and times must be above 0")
	case !(l.config.Precision >= leastPrecision), l.config.Precision > 1:
		return resource.Invalid("precision", "--precision %g is not from %g to 1", l.config.Precision, leastPrecision)
	}
	if err := writable("report", l.report, ".html"); err != nil {
		return err
	}
	return writable("plot", l.plot, ".png", ".svg")
}

// writable refuses a file to be written before anything is measured for it.
func writable(flag, file string, endings ...string) error {
	if file == "" {
		return nil
	}
	if !slices.Contains(endings, filepath.Ext(file)) {
		return resource.Invalid(flag, "--%s %s: want a name that ends with %s", flag, file, strings.Join(endings, " or "))
	}
	if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
		return resource.Invalid(flag, "--%s %s: there is no folder %s", flag, file, filepath.Dir(file))
	}
	return nil
}

// targets makes what gets the load, and what measures requests of several instances.
func (l *loader) targets() (*load.Endpoint, func(context.Context, time.Duration) ([]load.Size, error), error) {
	at, err := url.Parse(l.client.base)
	if err != nil {
		return nil, nil, err
	}
	c := load.EndpointConfig{Address: at.Host, Path: "/v1/" + l.endpoint.GetName() + ":predict", Token: l.client.token}
	if t, ok := l.client.http.Transport.(*http.Transport); ok && at.Scheme == "https" {
		c.TLS = t.TLSClientConfig
		if at.Port() == "" {
			c.Address += ":443"
		}
	}
	none := func(context.Context, time.Duration) ([]load.Size, error) { return nil, nil }
	if l.body != "" {
		body, err := os.ReadFile(l.body)
		if err != nil {
			return nil, nil, err
		}
		c.Path, c.ContentType, c.Bodies = "/v1/"+l.endpoint.GetName()+":rawPredict", l.contentType, [][]byte{body}
		target, err := load.NewEndpoint(c)
		return target, none, err
	}
	file, err := os.Open(l.instances)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }() // only read
	instances, parameters, err := load.ReadInstances(l.instances, file)
	if err != nil {
		return nil, nil, err
	}
	for i := range instances {
		c.Bodies = append(c.Bodies, load.PredictBody(instances, parameters, i, 1))
	}
	target, err := load.NewEndpoint(c)
	return target, func(ctx context.Context, limit time.Duration) ([]load.Size, error) {
		return load.Sizes(ctx, limit, mostBatch, func(ctx context.Context, n int) (failure, detail string) {
			ctx, cancel := context.WithTimeout(ctx, l.config.Timeout)
			defer cancel()
			return target.Send(ctx, load.PredictBody(instances, parameters, 0, n))
		})
	}, err
}

// leastPrecision is what steps of some seconds can tell apart.
const leastPrecision = 0.005

// mostBatch is the largest request that is tried.
const mostBatch = 256

// write makes the files that were asked for.
func (l *loader) write(r *load.Result, advice []string) error {
	title := load.Title{ID: path.Base(l.endpoint.GetName()), Name: l.endpoint.GetDisplayName()}
	if l.report != "" {
		if err := os.WriteFile(l.report, []byte(r.HTML(title, advice)), 0o644); err != nil {
			return err
		}
		l.say("report " + l.report)
	}
	if l.plot == "" {
		return nil
	}
	picture := &bytes.Buffer{}
	if filepath.Ext(l.plot) == ".svg" {
		picture.WriteString(r.SVG(title))
	} else if err := r.PNG(picture, title); err != nil {
		return err
	}
	if err := os.WriteFile(l.plot, picture.Bytes(), 0o644); err != nil {
		return err
	}
	l.say("plot " + l.plot)
	return nil
}

func (l *loader) show(s load.Step) {
	if !l.begun {
		l.say(load.Head())
		l.begun = true
	}
	l.say(load.Line(s))
}

func (l *loader) say(line string) { _, _ = fmt.Fprintln(l.out, line) } // a reader that left is no reason to stop
