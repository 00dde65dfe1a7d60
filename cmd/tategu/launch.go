package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/gcpc"
	"tategu/internal/launch"
	"tategu/internal/resource"
)

func launchCommand() *cobra.Command {
	var task string
	var attempt int
	cmd := &cobra.Command{
		Use:   "launch [flags] MODULE [ARGS...]",
		Short: "Do what a component of google-cloud-pipeline-components does, as a task of a pipeline",
		Long: `launch makes a job, a model or an endpoint through the API, waits for its end, and writes what came of
it where ARGS say. Pipelines run it in place of the containers of google-cloud-pipeline-components,
whose command names the MODULE; ARGS are those of the component: --type, --payload, --project,
--location, --gcp_resources, --executor_input.

In a task it calls the server with the task's own rights, elsewhere with yours. What it makes has an
id that follows from --task, so that a second start finds what the first one made. SIGTERM cancels
what was launched. Modules:

` + modules(),
		Example: `  tategu launch google_cloud_pipeline_components.` + gcpc.CustomJob + ` --type CustomJob \
    --payload "$(cat job.json)" --project p --location us-central1 --gcp_resources out.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := launchAPI(cmd)
			if err != nil {
				return err
			}
			return launch.Run(cmd.Context(), launch.Config{
				API: api, Module: args[0], Args: args[1:], Task: task, Attempt: attempt,
				Labels: os.Getenv("VERTEX_AI_PIPELINES_RUN_LABELS"), GCS: os.Getenv("TATEGU_GCS_DIR"), Log: cmd.OutOrStdout(),
			})
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the module is the component's
	cmd.Flags().StringVar(&task, "task", "", "the task of a pipeline that what is made belongs to")
	cmd.Flags().IntVar(&attempt, "attempt", 1, "which start of the task this is; what failed before the last one is made anew")
	cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to")
	return cmd
}

func modules() string {
	var text strings.Builder
	for _, m := range gcpc.Served() {
		text.WriteString("  " + gcpc.Prefix + m + "\n")
	}
	return text.String()
}

// launchAPI calls the server with the rights of the task that this program is, and
// outside a task as the other verbs do.
func launchAPI(cmd *cobra.Command) (*launch.API, error) {
	host, endpoint := os.Getenv("GCE_METADATA_HOST"), os.Getenv("TATEGU_ENDPOINT")
	if host == "" || endpoint == "" {
		c, err := connect(cmd)
		if err != nil {
			return nil, err
		}
		token := func(ctx context.Context, _ bool) (string, error) {
			if c.token == nil {
				return "", nil
			}
			return c.token(ctx)
		}
		return &launch.API{Base: c.base, HTTP: c.http, Token: token, Sleep: sleep}, nil
	}
	h := &http.Client{Transport: transport(nil)} // trusts what SSL_CERT_FILE names
	return &launch.API{Base: "https://" + endpoint, HTTP: h, Token: taskToken(h, host), Sleep: sleep}, nil
}

// taskToken asks the metadata server of the task, and keeps a token for most of its life.
func taskToken(h *http.Client, host string) func(context.Context, bool) (string, error) {
	var mu sync.Mutex
	var token string
	var until time.Time
	return func(ctx context.Context, renew bool) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if !renew && token != "" && time.Now().Before(until) {
			return token, nil
		}
		var answer struct {
			Token   string `json:"access_token"`
			Seconds int    `json:"expires_in"`
		}
		url := "http://" + host + "/computeMetadata/v1/instance/service-accounts/default/token"
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil) //nolint:gosec // who starts a task says where its credentials are
		if err != nil {
			return "", err
		}
		req.Header.Set("Metadata-Flavor", "Google")
		resp, err := h.Do(req) //nolint:gosec // likewise
		if err != nil {
			return "", launch.Lost(fmt.Errorf("ask for the task's credentials: %w", err))
		}
		defer func() { _ = resp.Body.Close() }() // decoded below
		if resp.StatusCode != http.StatusOK {
			return "", resource.Errorf(14, "the task's metadata server answered %s", resp.Status)
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return "", launch.Lost(fmt.Errorf("read the task's credentials: %w", err))
		}
		token, until = answer.Token, time.Now().Add(time.Duration(answer.Seconds)*time.Second*3/4)
		return token, nil
	}
}

// sleep waits for a time, or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
