package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/api/admin"
)

func queueCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "queue", Short: "Show what waits for room on the machine, and who has it", Args: cobra.NoArgs,
		Long: `queue shows how the server's machine is shared: what waits, in the order in which it will
be served, and for what; what runs and holds cores, memory and GPUs; and what there is in
all. It names the work of every project and needs an administrator of all of them.`,
		Example: "  tategu queue\n  tategu queue --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var q admin.Queue
			if err := c.call(cmd.Context(), http.MethodGet, admin.QueuePath, nil, &q); err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(q)
			}
			return printQueue(cmd.OutOrStdout(), q, time.Now())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer")
	cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to")
	return cmd
}

func printQueue(w io.Writer, q admin.Queue, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	since := func(e admin.QueueEntry) string { return now.Sub(e.Since).Round(time.Second).String() }
	if len(q.Waiting) > 0 { // a tabwriter reports at Flush
		_, _ = fmt.Fprintln(t, "PLACE\tPRIORITY\tPROJECT\tWORKLOAD\tASKS FOR\tWAITED\tWAITS FOR")
	}
	for _, e := range q.Waiting {
		_, _ = fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Position, e.Priority, e.Project, e.Workload, asksFor(e), since(e), e.Waits)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(q.Waiting) > 0 {
		_, _ = fmt.Fprintln(t)
	}
	if len(q.Running) > 0 {
		_, _ = fmt.Fprintln(t, "RUNNING\tPRIORITY\tPROJECT\tWORKLOAD\tHOLDS\tFOR")
	}
	for _, e := range q.Running {
		_, _ = fmt.Fprintf(t, "\t%s\t%s\t%s\t%s\t%s\n", e.Priority, e.Project, e.Workload, asksFor(e), since(e))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s running, %d waiting; in use: %g of %g cores, %s of %s, %d of %d GPUs\n", counted(int64(len(q.Running)), "workload"), len(q.Waiting),
		q.Used.Cores, q.Total.Cores, memory(q.Used.MemoryBytes), memory(q.Total.MemoryBytes), q.Used.GPUs, q.Total.GPUs)
	return err
}

func asksFor(e admin.QueueEntry) string {
	text := fmt.Sprintf("%g cores, %s", e.Asks.Cores, memory(e.Asks.MemoryBytes))
	switch {
	case len(e.GPUIDs) > 0:
		text += ", GPU " + strings.Join(e.GPUIDs, " ")
	case e.Asks.GPUs == 1:
		text += ", 1 GPU"
	case e.Asks.GPUs > 1:
		text += fmt.Sprintf(", %d GPUs", e.Asks.GPUs)
	}
	return text
}

// memory is written in the units in which it is asked for and declared.
func memory(bytes int64) string { return fmt.Sprintf("%d MiB", bytes>>20) }
