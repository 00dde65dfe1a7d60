package main

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tategu/internal/resource"
)

// mostOffered bounds what the shell is given of each kind, the newest first.
const mostOffered = "100"

// listedNames are ids of a collection in the server's project, with display names
// beside them, as the shell's completion takes them.
func listedNames(cmd *cobra.Command, collection string) ([]string, error) {
	c, err := connect(cmd)
	if err != nil {
		return nil, err
	}
	q := url.Values{"pageSize": {mostOffered}, "orderBy": {"create_time desc"}}
	var page map[string][]struct{ Name, DisplayName string }
	if err := c.call(cmd.Context(), http.MethodGet, "/v1/projects/"+url.PathEscape(c.project)+"/locations/-/"+collection+"?"+q.Encode(), nil, &page); err != nil {
		return nil, err
	}
	names := make([]string, len(page[collection]))
	for i, r := range page[collection] {
		names[i] = cobra.CompletionWithDesc(path.Base(r.Name), r.DisplayName)
	}
	return names, nil
}

// completeEndpoints offers endpoints for the first argument.
func completeEndpoints(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := listedNames(cmd, resource.KindEndpoints)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeWhy offers all that `why` tells about: runs, endpoints, batch prediction jobs.
func completeWhy(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	runs, directive := completeRuns(cmd, args, typed)
	endpoints, err := listedNames(cmd, resource.KindEndpoints)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	jobs, err := listedNames(cmd, resource.KindBatchPredictionJobs)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.Concat(runs, endpoints, jobs), directive
}

// completeModelFlag offers the models of the server's project.
func completeModelFlag(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	names, err := listedNames(cmd, resource.KindModels)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeDeployed offers the deployed models of the endpoint that the first argument names.
func completeDeployed(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_, e, err := connectTo(cmd, args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, d := range e.GetDeployedModels() {
		names = append(names, cobra.CompletionWithDesc(d.GetId(), d.GetDisplayName()))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeNamedJob offers jobs once NAME= is typed.
func completeNamedJob(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	name, _, ok := strings.Cut(typed, "=")
	if !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	jobs, err := listedNames(cmd, resource.KindBatchPredictionJobs)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for i := range jobs {
		jobs[i] = name + "=" + jobs[i]
	}
	return jobs, cobra.ShellCompDirectiveNoFileComp
}
