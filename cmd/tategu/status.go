package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"tategu/internal/api/console"
	"tategu/internal/resource"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the server and what it holds",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var s serverStatus
			if err := c.call(cmd.Context(), http.MethodGet, "/tategu/v1/status", nil, &s); err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), c.base)
		},
	}
	cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to")
	return cmd
}

type serverStatus struct {
	Version       string   `json:"version"`
	UptimeSeconds float64  `json:"uptimeSeconds"`
	Warnings      []string `json:"warnings"`
	Machine       console.Load
	Resources     []struct {
		Name, Kind, DisplayName, State, Error string
		CreateTime                            time.Time
	} `json:"resources"`
}

func (s serverStatus) print(w io.Writer, base string) error {
	up := time.Duration(s.UptimeSeconds * float64(time.Second)).Round(time.Second)
	if _, err := fmt.Fprintf(w, "tategu %s on %s, up %s\n", s.Version, base, up); err != nil {
		return err
	}
	for _, warning := range s.Warnings {
		if _, err := fmt.Fprintf(w, "WARNING: %s\n", warning); err != nil {
			return err
		}
	}
	if s.Machine.InUse != "" { // an older server does not say
		if _, err := fmt.Fprintf(w, "%d running, %d waiting for room; in use: %s\n", s.Machine.Running, s.Machine.Waiting, s.Machine.InUse); err != nil {
			return err
		}
	}
	if len(s.Resources) == 0 {
		_, err := fmt.Fprintln(w, "nothing here yet")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "STATE\tCREATED\tDISPLAY NAME\tNAME") // a tabwriter reports at Flush
	for _, r := range s.Resources {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", shortState(r.State), r.CreateTime.Local().Format(time.DateTime), r.DisplayName, r.Name)
		if r.Error != "" {
			_, _ = fmt.Fprintf(t, "\t\t\t  %s\n", strings.ReplaceAll(r.Error, "\n", "\n\t\t\t  "))
		}
	}
	return t.Flush()
}

// shortState cuts the enum prefix: PIPELINE_STATE_RUNNING reads RUNNING.
func shortState(s string) string {
	for _, p := range []string{"PIPELINE_STATE_", "JOB_STATE_"} {
		s = strings.TrimPrefix(s, p)
	}
	if s == "" {
		return "-"
	}
	return s
}

func logsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Print the log of a job, task or endpoint",
		Long: `logs prints the output of everything that ran for NAME: the id or display name of a job or
endpoint, JOB/TASK for a task of a pipeline run, a task's name alone for the run that had it
last, or a full resource name as "tategu status" lists it. Of several the newest is meant.`,
		Example: "  tategu logs train-20260102\n  tategu logs --follow train-20260102/fit-model\n  tategu logs fit-model",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			q := url.Values{"resource": {args[0]}}
			if follow {
				q.Set("follow", "1")
			}
			r, err := c.do(cmd.Context(), http.MethodGet, "/tategu/v1/logs", q, nil)
			if err != nil {
				return err
			}
			defer func() { _ = r.Close() }() // read to the end below
			n, err := io.Copy(cmd.OutOrStdout(), r)
			if n == 0 && err == nil {
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s has printed nothing\n", args[0])
			}
			return brokeOff(cmd, args[0], err)
		},
		ValidArgsFunction: completeNames,
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the job has ended")
	cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to")
	return cmd
}

// completeNames offers ids and display names of what the server lists.
func completeNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := connect(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var s serverStatus
	if err := c.call(cmd.Context(), http.MethodGet, "/tategu/v1/status", nil, &s); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := make([]string, 0, 2*len(s.Resources))
	for _, r := range s.Resources {
		if r.Kind == resource.KindModels {
			continue // nothing runs for a model alone
		}
		names = append(names, cobra.CompletionWithDesc(path.Base(r.Name), r.Kind+" "+shortState(r.State)))
		if r.DisplayName != "" && r.DisplayName != path.Base(r.Name) {
			names = append(names, cobra.CompletionWithDesc(r.DisplayName, r.Kind+" "+path.Base(r.Name)))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// brokeOff says why a log ends early: the caller had enough, or the server went away.
func brokeOff(cmd *cobra.Command, name string, err error) error {
	if err != nil && cmd.Context().Err() != nil {
		return &exit{code: exitCancelled}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return resource.Errorf(codes.Unavailable, "the log broke off, since the server went away").WithHint("once it is back, `tategu logs --follow %s` shows all of it", name)
	}
	return err
}
