package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/modelcache"
	"tategu/internal/resource"
)

func modelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "model", Short: "Register and list models, and bring their files to this machine",
		Long: `A model is registered by push, or by the clients of the API, such as Model.upload of the Python SDK. Its
versions have numbers, and aliases that move from one to another. MODEL is the id of a model, its
full name, or its display name; MODEL@ALIAS and MODEL@VERSION are one of its versions, and MODEL
alone is its default version.`,
	}
	cmd.PersistentFlags().String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.PersistentFlags().String("project", "", "project of the models (default: the server's)")
	cmd.PersistentFlags().String("location", "", "location of the models (default: the server's)")
	cmd.AddCommand(modelLsCommand(), modelShowCommand(), modelPushCommand(), modelPullCommand(), modelServeCommand(), modelPruneCommand())
	return cmd
}

// modelView is what the command line reads of a Model.
type modelView struct {
	Name              string    `json:"name"`
	DisplayName       string    `json:"displayName"`
	VersionID         string    `json:"versionId"`
	VersionAliases    []string  `json:"versionAliases"`
	VersionUpdateTime time.Time `json:"versionUpdateTime,omitzero"`
	VersionCreateTime time.Time `json:"versionCreateTime,omitzero"`
	ArtifactURI       string    `json:"artifactUri"`
	Etag              string    `json:"etag"`
	ContainerSpec     struct {
		ImageURI string `json:"imageUri"`
	} `json:"containerSpec"`
}

func (v modelView) model() string {
	name, _, _ := strings.Cut(v.Name, "@")
	return name
}

func (v modelView) version() modelcache.Version {
	return modelcache.Version{
		Model: v.model(), DisplayName: v.DisplayName, ID: v.VersionID, Aliases: append([]string{}, v.VersionAliases...), // [] in JSON
		ArtifactURI: v.ArtifactURI, Updated: v.VersionUpdateTime, Etag: v.Etag,
	}
}

// models are those of one project and location of a server.
type models struct {
	*client
	parent string
}

func modelsOf(cmd *cobra.Command) (*models, error) {
	c, err := connect(cmd)
	if err != nil {
		return nil, err
	}
	project, location := or(cmd.Flag("project").Value.String(), c.project), or(cmd.Flag("location").Value.String(), c.location)
	return &models{client: c, parent: "projects/" + url.PathEscape(project) + "/locations/" + url.PathEscape(location)}, nil
}

// listed reads all pages of models or versions.
func (m *models) listed(ctx context.Context, path, filter string) ([]modelView, error) {
	var all []modelView
	query := url.Values{"pageSize": {"1000"}}
	if filter != "" {
		query.Set("filter", filter)
	}
	for {
		var page struct {
			Models        []modelView `json:"models"`
			NextPageToken string      `json:"nextPageToken"`
		}
		if err := m.call(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &page); err != nil {
			return nil, fromAnswer(err)
		}
		all = append(all, page.Models...)
		if page.NextPageToken == "" {
			return all, nil
		}
		query.Set("pageToken", page.NextPageToken)
	}
}

func (m *models) get(ctx context.Context, name string) (modelView, error) {
	var v modelView
	err := m.call(ctx, http.MethodGet, "/v1/"+escaped(name), nil, &v)
	return v, fromAnswer(err)
}

// escaped is a resource name in a path.
func escaped(name string) string {
	segments := strings.Split(name, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// find gives the version that MODEL, MODEL@ALIAS or MODEL@VERSION is.
func (m *models) find(ctx context.Context, text string) (modelView, error) {
	name, version, at := strings.Cut(text, "@")
	if at {
		version = "@" + version
	}
	missing := resource.NotFound(text).WithHint("`tategu model ls` lists the models")
	full := name
	if !strings.Contains(name, "/") {
		full = m.parent + "/models/" + name
	}
	v, err := m.get(ctx, full+version)
	if !resource.IsNotFound(err) {
		return v, err
	}
	unversioned := resource.NotFound(text).WithHint("`tategu model show %s` lists its versions and aliases", quote(name))
	if full == name {
		if _, err := m.get(ctx, full); at && err == nil {
			return v, unversioned
		}
		return v, missing
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return v, err
	}
	named, err := m.listed(ctx, "/v1/"+m.parent+"/models", "display_name="+string(quoted))
	if err != nil {
		return v, err
	}
	switch {
	case len(named) > 1:
		return v, resource.Invalid("model", "%d models are called %q", len(named), name).WithHint("name one by its id: `tategu model ls`")
	case len(named) == 0:
		return v, missing
	case !at:
		return named[0], nil
	}
	if v, err = m.get(ctx, named[0].model()+version); resource.IsNotFound(err) {
		return v, unversioned
	}
	return v, err
}

// fromAnswer gives the answers of the server that are errors their codes.
func fromAnswer(err error) error {
	e, ok := errors.AsType[*answerError](err)
	if !ok {
		return err
	}
	switch e.status {
	case http.StatusNotFound:
		return resource.Errorf(5, "%w", e)
	case http.StatusForbidden:
		return resource.Errorf(7, "%w", e)
	case http.StatusUnauthorized:
		return resource.Errorf(16, "%w", e).WithHint("log in again: `tategu login`")
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return resource.Errorf(14, "%w", e)
	}
	return err
}

func modelLsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the models of a project, with their default versions", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := modelsOf(cmd)
			if err != nil {
				return err
			}
			all, err := m.listed(cmd.Context(), "/v1/"+m.parent+"/models", "")
			if err != nil {
				return err
			}
			return printModels(cmd, all, asJSON, func(v modelView) string { return path.Base(v.model()) + "\t" + v.DisplayName }, "ID\tNAME")
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func modelShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show MODEL[@ALIAS]", Short: "Show the versions of a model, or one of them", Args: cobra.ExactArgs(1), ValidArgsFunction: completeModels,
		Example: "  tategu model show ranker\n  tategu model show ranker@champion",
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := modelsOf(cmd)
			if err != nil {
				return err
			}
			if err := modelcache.CheckName(args[0]); err != nil {
				return err
			}
			v, err := m.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			all := []modelView{v}
			if !strings.Contains(args[0], "@") {
				if all, err = m.listed(cmd.Context(), "/v1/"+escaped(v.model())+":listVersions", ""); err != nil {
					return err
				}
			}
			return printModels(cmd, all, asJSON, modelView.model, "MODEL")
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// printModels writes a table; first gives its first columns.
func printModels(cmd *cobra.Command, all []modelView, asJSON bool, first func(modelView) string, heads string) error {
	if asJSON {
		versions := make([]modelcache.Version, len(all))
		for i, v := range all {
			versions[i] = v.version()
		}
		return printJSON(cmd, versions)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, heads+"\tVERSION\tALIASES\tCREATED\tFILES OR IMAGE") // Flush tells
	for _, v := range all {
		created := "-"
		if !v.VersionCreateTime.IsZero() {
			created = v.VersionCreateTime.Local().Format("2006-01-02 15:04")
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", first(v), v.VersionID, or(strings.Join(v.VersionAliases, ","), "-"), created, cmp.Or(v.ArtifactURI, v.ContainerSpec.ImageURI))
	}
	return w.Flush()
}

func printJSON(cmd *cobra.Command, v any) error {
	out := json.NewEncoder(cmd.OutOrStdout())
	out.SetIndent("", "  ")
	return out.Encode(v)
}

// completeModels offers ids, with display names beside them.
func completeModels(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	m, err := modelsOf(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	all, err := m.listed(cmd.Context(), "/v1/"+m.parent+"/models", "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, v := range all {
		if id := path.Base(v.model()); strings.HasPrefix(id, typed) {
			names = append(names, id+"\t"+v.DisplayName)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// modelCache opens the cache of this machine's models.
func modelCache(cmd *cobra.Command) (*modelcache.Cache, error) {
	cfg, err := configure(cmd)
	if err != nil {
		return nil, err
	}
	return modelcache.Open(filepath.Join(cfg.Cache, "models"))
}
