package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tategu/internal/api/torchserve"
	"tategu/internal/app"
	"tategu/internal/mar"
	"tategu/internal/resource"
	"tategu/internal/telemetry"
	engine "tategu/internal/torchserve"
	"tategu/internal/transfer"
)

// torchserveFlags is the command line of TorchServe.
type torchserveFlags struct {
	start, stop, showVersion, foreground           bool
	config, modelStore, workflowStore              string
	models                                         []string
	logConfig, cppLogConfig, plugins, python, work string
	noSnapshots, noTokens, modelAPI                bool
}

func torchserveCommand() *cobra.Command {
	var f torchserveFlags
	cmd := &cobra.Command{
		Use: "torchserve", Short: "Serve TorchServe's model archives by TorchServe's APIs",
		Long: `torchserve is a server of TorchServe's APIs in the place of the one in Java: the same command line,
config.properties, .mar and .war files, handlers (by the Python package torchserve, which must be
installed beside torch), ports (8080, 8081, 8082, 7070, 7071), tokens and snapshots. It needs no other
server of tategu. Archives come from the model store, http(s)://, gs:// and s3://; gs:// is read from
the server of tategu that runs here or was logged in to, else from the cloud.
docs/guide/torchserve.md says what differs.`,
		Example: `  tategu torchserve --start --model-store store --models resnet=resnet.mar
  tategu torchserve --start --foreground --model-store store --ts-config config.properties --ncs
  tategu torchserve --stop`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && !cmd.Flags().Changed("models") {
				return fmt.Errorf("%q is no option; models are named behind --models", args[0])
			}
			f.models = append(f.models, args...)
			switch {
			case f.showVersion:
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "TorchServe Version is %s (tategu %s)\n", torchserve.Version, version)
				return err
			case f.stop:
				return stopTorchserve(cmd)
			case f.foreground:
				return f.serve(cmd)
			}
			return f.background(cmd)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.start, "start", false, "start the server (this is what no option means, too)")
	fl.BoolVar(&f.stop, "stop", false, "end the server that runs")
	fl.BoolVarP(&f.showVersion, "version", "v", false, "print the version of TorchServe whose APIs these are")
	fl.BoolVar(&f.foreground, "foreground", false, "stay until the server ends")
	fl.StringVar(&f.config, "ts-config", "", "configuration file (default: $TS_CONFIG_FILE, the last snapshot, config.properties)")
	fl.StringVar(&f.modelStore, "model-store", "", "folder of model archives")
	fl.StringVar(&f.workflowStore, "workflow-store", "", "folder of workflow archives (default: the model store)")
	fl.StringArrayVar(&f.models, "models", nil, "what to load: NAME=ARCHIVE, ARCHIVE, or all; more may follow")
	fl.BoolVar(&f.noSnapshots, "no-config-snapshots", false, "write no snapshots, and start from none")
	fl.BoolVar(&f.noSnapshots, "ncs", false, "as --no-config-snapshots")
	fl.BoolVar(&f.noTokens, "disable-token-auth", false, "requests need no token")
	fl.BoolVar(&f.noTokens, "dt", false, "as --disable-token-auth")
	fl.BoolVar(&f.modelAPI, "enable-model-api", false, "models may be registered and removed while the server runs")
	fl.StringVar(&f.logConfig, "log-config", "", "taken and not read: it configures a logger of Java")
	fl.StringVar(&f.cppLogConfig, "cpp-log-config", "", "taken and not read")
	fl.StringVar(&f.plugins, "plugins-path", "", "taken and not read: plugins are Java")
	fl.StringVar(&f.plugins, "ppath", "", "as --plugins-path")
	fl.StringVar(&f.python, "python", "", "Python that runs workers (default: that of the active environment, else python3)")
	fl.StringVar(&f.work, "work", "", "folder of unpacked archives and sockets (default: .tategu in the model store)")
	fl.String("server", "", "HOST:PORT of a server of tategu that you logged in to: gs:// is its storage")
	cmd.MarkFlagsMutuallyExclusive("start", "stop", "version")
	for _, dir := range []string{"model-store", "workflow-store", "work"} {
		_ = cmd.MarkFlagDirname(dir) // the flag is there
	}
	return cmd
}

// settings reads the configuration as TorchServe does: the environment names a file
// before the command line does, whose options go before what is in the file.
func (f *torchserveFlags) settings() (engine.Config, error) {
	c := engine.Defaults()
	path, named := os.Getenv("TS_CONFIG_FILE"), true
	if path == "" {
		path = f.config
	}
	snapshots := filepath.Join(logLocation(), "config")
	if path == "" && !f.noSnapshots {
		last, err := engine.LastSnapshot(snapshots)
		if err != nil {
			return c, err
		}
		path = last
	}
	if path == "" {
		path, named = "config.properties", false
	}
	text, err := os.ReadFile(path) //nolint:gosec // whoever runs this names it
	switch {
	case err == nil:
		if c, err = engine.ReadProperties(c, text, os.LookupEnv); err != nil {
			return c, fmt.Errorf("%s: %w", path, err)
		}
	case named || !errors.Is(err, os.ErrNotExist):
		return c, fmt.Errorf("--ts-config file not found: %s: %w", path, err)
	}
	if !f.noSnapshots {
		c.SnapshotFolder = snapshots
	}
	return c, f.override(&c)
}

// override puts what the command line says over what the file says.
func (f *torchserveFlags) override(c *engine.Config) error {
	set := func(into *string, v string) {
		if v != "" {
			*into = v
		}
	}
	set(&c.ModelStore, f.modelStore)
	set(&c.WorkflowStore, f.workflowStore)
	set(&c.Python, f.python)
	if f.python == "" && c.Properties["python"] == "" {
		if venv := os.Getenv("VIRTUAL_ENV"); venv != "" {
			c.Python = filepath.Join(venv, "bin", "python")
		}
	}
	if len(f.models) > 0 {
		c.LoadModels, c.ModelSnapshot = nil, nil
		for _, m := range f.models {
			c.LoadModels = append(c.LoadModels, strings.Split(m, ",")...)
		}
	}
	c.Listen.TokensDisabled = c.Listen.TokensDisabled || f.noTokens
	c.Listen.ModelAPI = c.Listen.ModelAPI || f.modelAPI
	if c.ModelStore == "" {
		return errors.New("Missing mandatory parameter --model-store") //nolint:staticcheck // TorchServe's words
	}
	for _, d := range []struct{ flag, dir string }{{"--model-store", c.ModelStore}, {"--workflow-store", c.WorkflowStore}} {
		if info, err := os.Stat(d.dir); d.dir != "" && (err != nil || !info.IsDir()) {
			return fmt.Errorf("%s directory not found: %s", d.flag, d.dir)
		}
	}
	for key, p := range map[string]*string{"model_store": &c.ModelStore, "workflow_store": &c.WorkflowStore} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
		if c.Properties == nil {
			c.Properties = map[string]string{}
		}
		c.Properties[key] = abs // so that a snapshot is a configuration by itself, as TorchServe's are
	}
	c.Work = filepath.Join(c.ModelStore, ".tategu")
	set(&c.Work, f.work)
	return nil
}

// logLocation is where logs go.
func logLocation() string {
	if dir := os.Getenv("LOG_LOCATION"); dir != "" {
		return dir
	}
	return "logs"
}

// serve runs the server until it is told to end.
func (f *torchserveFlags) serve(cmd *cobra.Command) error {
	keepReady()
	c, err := f.settings()
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(cmd.ErrOrStderr(), telemetry.Text, "info")
	if err != nil {
		return err
	}
	f.warn(log, c)
	pid, err := claimPID()
	if err != nil {
		return err
	}
	metrics := os.Getenv("METRICS_LOCATION")
	if metrics == "" {
		metrics = logLocation()
	}
	server := &app.TorchServe{Config: c, Logs: logLocation(), Metrics: metrics, Objects: platformObjects(cmd), Log: log, Ready: tellReady}
	if !c.Listen.TokensDisabled {
		if server.KeyFile, err = filepath.Abs("key_file.json"); err != nil {
			return errors.Join(err, pid.release())
		}
	}
	return errors.Join(server.Run(cmd.Context()), pid.release())
}

// warn names what was asked for and has no effect.
func (f *torchserveFlags) warn(log *slog.Logger, c engine.Config) {
	for _, o := range []struct{ name, value string }{{"--log-config", f.logConfig}, {"--cpp-log-config", f.cppLogConfig}, {"--plugins-path", f.plugins}} {
		if o.value != "" {
			log.Warn("this option has no effect here: it is about TorchServe's Java server", slog.String("option", o.name))
		}
	}
	for _, k := range c.Ignored {
		log.Warn("this key of the configuration has no effect here; docs/guide/torchserve.md lists such keys", slog.String("key", k))
	}
	for _, k := range c.Unknown {
		log.Warn("this key of the configuration is not known", slog.String("key", k))
	}
}

// serverObjects reads gs:// from a server of tategu.
type serverObjects struct{ client *transfer.Client }

// platformObjects reads gs:// from the server that runs here or was logged in to; nil
// where there is none: then gs:// is the cloud's.
func platformObjects(cmd *cobra.Command) mar.Objects {
	c, err := connect(cmd)
	if err != nil {
		return nil
	}
	return serverObjects{&transfer.Client{Base: c.base, HTTP: c.http, Token: c.token}}
}

func (s serverObjects) OpenURI(ctx context.Context, uri string) (io.ReadCloser, error) {
	if !transfer.IsRemote(uri) {
		return app.CloudObject(ctx, uri)
	}
	u, err := transfer.ParseURL(uri)
	if err != nil {
		return nil, resource.Invalid("url", "%v", err)
	}
	o, err := s.client.Stat(ctx, u)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.CloseWithError(s.client.Download(ctx, o, w, func(int64) {})) // it gives no error
	}()
	return &download{r, func() { cancel(); <-done }}, nil
}

// download ends with its reader.
type download struct {
	*io.PipeReader
	end func()
}

func (d *download) Close() error {
	err := d.PipeReader.Close()
	d.end()
	return err
}
