// Command tategu is the whole platform: a server that speaks the aiplatform, GCS
// and neighbouring APIs, and the tools around it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tategu/internal/app"
	"tategu/internal/batch"
	"tategu/internal/resource"
	"tategu/internal/runtime/process"
	"tategu/internal/vector/builder"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(Main(os.Args[1:])) }

// Main runs one command line and gives the exit code; script tests call it too.
func Main(args []string) int {
	if len(args) > 0 && args[0] == process.Verb {
		return process.Main(args[1:])
	}
	if len(args) > 0 && args[0] == batch.WorkerVerb {
		if err := batchWorker(args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "batch worker: "+told(err))
			return 1
		}
		return 0
	}
	if len(args) > 0 && args[0] == app.TorchVerb {
		if err := torchReplica(args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "torch replica: "+told(err))
			return 1
		}
		return 0
	}
	if len(args) > 0 && args[0] == builder.Verb {
		if err := builder.Main(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "index build: "+told(err))
			return 1
		}
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	end, ok := errors.AsType[*exit](err)
	if !ok {
		end = &exit{code: 1, err: err}
	}
	if end.err != nil {
		fmt.Fprintln(os.Stderr, "tategu: "+told(end.err))
	}
	return end.code
}

// exit is an end with a code of its own, without a message when err is nil.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// told is an error as the command line shows it: with its cause, unless that is
// plainly what was typed.
func told(err error) string {
	if e, ok := errors.AsType[*resource.Error](err); ok && e.Cause != "" && (e.Cause != resource.CauseInput || e.Reason != "") {
		return resource.Outcome(err).Error()
	}
	return err.Error()
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "tategu",
		Short: "A managed machine-learning platform in one binary",
		Long: `tategu serves models, pipelines, batch prediction and storage to the clients
that speak the aiplatform and GCS APIs, unmodified. Start it and point a shell at it:

  tategu serve
  eval "$(tategu env)"`,
		SilenceUsage: true, SilenceErrors: true, Version: version,
	}
	root.PersistentFlags().String("config", "", "configuration file (default: ./tategu.yaml when it exists)")
	root.PersistentFlags().String("data", "", "data directory (default: $XDG_DATA_HOME/tategu)")
	root.AddCommand(serveCommand(), envCommand(), demoCommand(), loginCommand(), tokenCommand(), keyCommand(), statusCommand(), queueCommand(), logsCommand(), versionCommand(), compatCommand())
	root.AddCommand(backupCommand(), restoreCommand())
	root.AddCommand(storageCommands()...)
	root.AddCommand(imageCommand(), modelCommand(), runCommand(), taskCommand(), scheduleCommand(), submitCommand(), runsCommand(), whyCommand(), loadCommand(), debugCommand(), rerunCommand(), launchCommand())
	root.AddCommand(deployCommand(), undeployCommand(), rolloutCommand(), shadowCommand())
	root.AddCommand(sqlCommand(), torchserveCommand(), indexCommand())
	explain(root)
	return root
}

// explain says how a verb is written where its words are wrong.
func explain(cmd *cobra.Command) {
	usage := func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; write %s (`%s --help` says more)", err, c.UseLine(), c.CommandPath())
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usage(c, err)
			}
			return nil
		}
	}
	for _, verb := range cmd.Commands() {
		explain(verb)
	}
}

// configure reads the configuration for a command: flags given on the command
// line win over TATEGU_* variables, these over the file.
func configure(cmd *cobra.Command) (app.Config, error) {
	path := os.Getenv("TATEGU_CONFIG")
	if f := cmd.Flag("config"); f != nil && f.Changed {
		path = f.Value.String()
	}
	cfg, err := app.Load(path)
	if err != nil {
		return cfg, err
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		value, ok := os.LookupEnv("TATEGU_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")))
		if f.Changed {
			value, ok = f.Value.String(), true
		}
		if ok && err == nil && isSetting(f) {
			err = cfg.Override(f.Name, strings.Trim(value, "[]"))
		}
	})
	return cfg, err
}

// isSetting tells the flags that stand for a configuration key from the others.
func isSetting(f *pflag.Flag) bool {
	return f.Name == "data" || len(f.Annotations[settingFlag]) > 0
}

const settingFlag = "tategu-setting"

// setting adds a flag that overrides a configuration key of the same name.
func setting(cmd *cobra.Command, name, usage string) {
	cmd.Flags().String(name, "", usage)
	cmd.Flag(name).Annotations = map[string][]string{settingFlag: {"true"}}
}
