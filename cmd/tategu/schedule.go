package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/resource"
)

func scheduleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "schedule", Short: "List, pause, resume and run schedules of pipelines",
		Long: `A schedule starts runs of a pipeline by the clock. It is created by the clients of the API, such
as PipelineJob.create_schedule of the Python SDK.`,
	}
	cmd.PersistentFlags().String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.PersistentFlags().String("project", "", "project of the schedules (default: the server's)")
	cmd.AddCommand(scheduleLsCommand(), schedulePauseCommand(), scheduleResumeCommand(), scheduleRunCommand())
	return cmd
}

// scheduleView is what the command line reads of a Schedule.
type scheduleView struct {
	Name            string    `json:"name"`
	DisplayName     string    `json:"displayName"`
	State           string    `json:"state"`
	Cron            string    `json:"cron"`
	NextRunTime     time.Time `json:"nextRunTime,omitzero"`
	StartedRunCount string    `json:"startedRunCount"`
	Request         struct {
		Parent      string          `json:"parent"`
		PipelineJob json.RawMessage `json:"pipelineJob"`
	} `json:"createPipelineJobRequest"`
}

func listSchedules(cmd *cobra.Command) (*client, []scheduleView, error) {
	c, err := connect(cmd)
	if err != nil {
		return nil, nil, err
	}
	project := cmd.Flag("project").Value.String()
	if project == "" {
		project = c.project
	}
	var all []scheduleView
	query := url.Values{}
	for {
		var page struct {
			Schedules     []scheduleView `json:"schedules"`
			NextPageToken string         `json:"nextPageToken"`
		}
		if err := c.call(cmd.Context(), http.MethodGet, "/v1/projects/"+url.PathEscape(project)+"/locations/-/schedules?"+query.Encode(), nil, &page); err != nil {
			return nil, nil, err
		}
		all = append(all, page.Schedules...)
		if page.NextPageToken == "" {
			return c, all, nil
		}
		query.Set("pageToken", page.NextPageToken)
	}
}

// findSchedule gives the schedule of an id, a full name or a display name.
func findSchedule(cmd *cobra.Command, text string) (*client, scheduleView, error) {
	c, all, err := listSchedules(cmd)
	if err != nil {
		return nil, scheduleView{}, err
	}
	var found []scheduleView
	for _, s := range all {
		if s.Name == text || path.Base(s.Name) == text {
			return c, s, nil
		}
		if s.DisplayName == text {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 1:
		return c, found[0], nil
	case 0:
		return nil, scheduleView{}, resource.NotFound(text).WithHint("`tategu schedule ls` lists them")
	default:
		return nil, scheduleView{}, resource.Invalid("schedule", "%d schedules are called %q", len(found), text).WithHint("name one by its id: `tategu schedule ls`")
	}
}

func scheduleLsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the schedules of a project", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, all, err := listSchedules(cmd)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			_, _ = fmt.Fprintln(w, "ID\tNAME\tSTATE\tCRON\tNEXT RUN\tRUNS") // Flush tells
			for _, s := range all {
				next := "-"
				if !s.NextRunTime.IsZero() && s.State == "ACTIVE" {
					next = s.NextRunTime.Local().Format("2006-01-02 15:04 MST")
				}
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", path.Base(s.Name), s.DisplayName, s.State, s.Cron, next, cmp.Or(s.StartedRunCount, "0"))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON list")
	return cmd
}

// completeSchedules offers display names, or ids where those do not tell apart.
func completeSchedules(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_, all, err := listSchedules(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	called := map[string]int{}
	for _, s := range all {
		called[s.DisplayName]++
	}
	var out []string
	for _, s := range all {
		name := s.DisplayName
		if name == "" || called[name] > 1 {
			name = path.Base(s.Name)
		}
		out = append(out, name+"\t"+s.State+" "+s.Cron)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// onSchedule is a command that calls one method of a schedule.
func onSchedule(verb, short string, body func(cmd *cobra.Command) any) *cobra.Command {
	return &cobra.Command{
		Use: verb + " SCHEDULE", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: completeSchedules,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, s, err := findSchedule(cmd, args[0])
			if err != nil {
				return err
			}
			return c.call(cmd.Context(), http.MethodPost, "/v1/"+s.Name+":"+verb, body(cmd), nil)
		},
	}
}

func schedulePauseCommand() *cobra.Command {
	return onSchedule("pause", "Start no more runs until it is resumed", func(*cobra.Command) any { return struct{}{} })
}

func scheduleResumeCommand() *cobra.Command {
	var catchUp bool
	cmd := onSchedule("resume", "Go on with a paused schedule", func(*cobra.Command) any { return map[string]bool{"catchUp": catchUp} })
	cmd.Flags().BoolVar(&catchUp, "catch-up", false, "start the runs that were missed, oldest first")
	return cmd
}

func scheduleRunCommand() *cobra.Command {
	return &cobra.Command{
		Use: "run SCHEDULE", Short: "Start one run now, besides the schedule", Args: cobra.ExactArgs(1), ValidArgsFunction: completeSchedules,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, s, err := findSchedule(cmd, args[0])
			if err != nil {
				return err
			}
			var job struct{ Name string }
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/"+s.Request.Parent+"/pipelineJobs", s.Request.PipelineJob, &job); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), job.Name)
			return err
		},
	}
}
