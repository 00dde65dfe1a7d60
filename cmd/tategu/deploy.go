package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"

	"tategu/internal/resource"
	"tategu/internal/serving"
	"tategu/internal/transfer"
)

// deployment is what the deploy command is told.
type deployment struct {
	push

	endpoint    string // its display name, id or name; "" = called as the model
	min, max    int32
	machine     string
	account     string
	keep        bool
	resourceSet bool // one of the flags about resources was given
}

func deployCommand() *cobra.Command {
	d := &deployment{}
	cmd := &cobra.Command{
		Use: "deploy SOURCE", Short: "Serve a model: from a file, a folder or the registry to an endpoint", Args: cobra.ExactArgs(1),
		Long: `deploy brings a model to an endpoint, which it makes where there is none. SOURCE is a file or folder
of this machine or gs://BUCKET/FOLDER, which are registered first ("tategu model push"), or a model of
the registry: MODEL, MODEL@VERSION or MODEL@ALIAS.

The model gets all the traffic once it is ready, and what had the traffic before is undeployed: no
request fails. One that does not start, or whose sample rows are not predicted as they say, changes
nothing. It goes to zero when nobody asks (--min 0) and starts with the next request. What is not
said is as it was at the model that it replaces. To try it on a share of the traffic first:
"tategu model push", then "tategu rollout".`,
		Example: "  tategu deploy ./fraud                                   # fraud/model.txt: endpoint fraud\n  tategu deploy fraud.onnx --endpoint scoring --max 4\n" +
			"  tategu deploy fraud@champion --min 1 --machine n1-standard-4\n  tategu deploy ./churn --image us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest",
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := modelsOf(cmd)
			if err != nil {
				return err
			}
			d.cmd, d.models = cmd, m
			d.resourceSet = slices.ContainsFunc([]string{"min", "max", "machine"}, func(name string) bool { return cmd.Flag(name).Changed })
			return d.run(args[0])
		},
	}
	d.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&d.endpoint, "endpoint", "", "endpoint to deploy to (default: the one called as the model)")
	f.Int32Var(&d.min, "min", 0, "replicas at least; 0: none while nobody asks")
	f.Int32Var(&d.max, "max", 1, "replicas at most")
	f.StringVar(&d.machine, "machine", "n1-standard-2", "machine type: the cores and the memory of a replica")
	f.StringVar(&d.account, "service-account", "", "account that the model's program has the rights of")
	f.BoolVar(&d.keep, "keep", false, "leave what had the traffic before deployed, without traffic")
	placeFlags(cmd)
	cmd.ValidArgsFunction = completeSource
	_ = cmd.RegisterFlagCompletionFunc("endpoint", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return completeEndpoints(cmd, nil, typed)
	}) // fails only for an unknown flag
	return cmd
}

// placeFlags are those that say which server, project and location are meant.
func placeFlags(cmd *cobra.Command) {
	cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.Flags().String("project", "", "project to work in (default: the server's)")
	cmd.Flags().String("location", "", "location to work in (default: the server's)")
}

// completeSource offers models; paths and gs:// are the shell's.
func completeSource(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if strings.HasPrefix(typed, "gs:") {
		return completeURLs(cmd, args, typed)
	}
	names, directive := completeModelFlag(cmd, args, typed)
	return names, directive &^ cobra.ShellCompDirectiveNoFileComp
}

func (d *deployment) run(source string) error {
	ctx, out := d.cmd.Context(), d.cmd.OutOrStdout()
	if d.min < 0 || d.max < 1 || d.max < d.min {
		return resource.Invalid("max", "%d to %d is not a range of replicas", d.min, d.max)
	}
	made, err := d.isFiles(source)
	if err != nil {
		return err
	}
	called := d.endpoint
	if called == "" && made {
		if called = d.name; called == "" {
			called = titleOf(source)
		}
	}
	var v modelView
	if !made {
		if v, err = d.models.find(ctx, source); err != nil {
			return err
		}
		if called == "" {
			called = v.DisplayName
		}
	}
	e, err := d.models.fetchEndpoint(ctx, called)
	if err != nil {
		return err
	}
	if err := free(e); err != nil {
		return err
	}
	if made { // only now that it can be deployed
		if v, err = d.register(source); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "registered %s@%s\n", v.DisplayName, v.VersionID); err != nil {
			return err
		}
	}
	if e == nil {
		if e, err = d.makeEndpoint(called); err != nil {
			return err
		}
	}
	return d.deploy(e, v)
}

// isFiles says whether SOURCE names files, and not a model of the registry.
func (d *deployment) isFiles(source string) (bool, error) {
	if transfer.IsRemote(source) {
		return true, nil
	}
	_, err := os.Stat(source)
	switch {
	case err == nil:
		return true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	case strings.HasPrefix(source, ".") || strings.HasPrefix(source, "/") || slices.Contains(modelEndings(), path.Ext(source)):
		return false, resource.NotFound(source).WithHint("SOURCE is a file or folder of this machine, gs://BUCKET/FOLDER, or a model: `tategu model ls`")
	}
	if given := givenFlags(d.cmd, []string{"name", "image", "to", "alias", "env"}); given != "" {
		return false, resource.Invalid("SOURCE", "%s is of files that are to be registered, and %s is none", given, source)
	}
	return false, nil
}

// free refuses an endpoint whose traffic somebody else moves.
func free(e *pb.Endpoint) error {
	id := path.Base(e.GetName())
	if alias := e.GetLabels()[serving.FollowLabel]; alias != "" {
		return resource.Errorf(9, "endpoint %s follows the alias %s", id, alias).
			WithHint("`tategu model push SOURCE --alias %s` has it take the version; `tategu rollout %s --unfollow` ends that", alias, id)
	}
	return untried(e)
}

func (d *deployment) makeEndpoint(called string) (*pb.Endpoint, error) {
	if strings.Contains(called, "/") {
		return nil, resource.NotFound(called).WithHint("an endpoint that is to be made is called by a display name")
	}
	var made struct {
		Name string `json:"name"`
	}
	if err := d.models.operate(d.cmd.Context(), http.MethodPost, "/v1beta1/"+d.models.parent+"/endpoints", &pb.Endpoint{DisplayName: called}, &made); err != nil {
		return nil, err
	}
	return &pb.Endpoint{Name: made.Name, DisplayName: called}, nil
}

// deploy gives the version all the traffic of the endpoint.
func (d *deployment) deploy(e *pb.Endpoint, v modelView) error {
	ctx, out := d.cmd.Context(), d.cmd.OutOrStdout()
	model := &pb.DeployedModel{Id: resource.NewID(), Model: v.model() + "@" + v.VersionID, DisplayName: v.DisplayName, ServiceAccount: d.account}
	before := largest(e)
	if before != nil && !d.resourceSet {
		model.PredictionResources = before.GetPredictionResources()
	} else {
		model.PredictionResources = &pb.DeployedModel_DedicatedResources{DedicatedResources: &pb.DedicatedResources{
			MachineSpec: &pb.MachineSpec{MachineType: d.machine}, MinReplicaCount: d.min, MaxReplicaCount: d.max,
		}}
	}
	if model.ServiceAccount == "" {
		model.ServiceAccount = before.GetServiceAccount()
	}
	if _, err := fmt.Fprintf(out, "deploying %s@%s to %s\n", v.DisplayName, v.VersionID, e.GetDisplayName()); err != nil {
		return err
	}
	split := map[string]int32{"0": 100}
	for _, other := range e.GetDeployedModels() {
		split[other.GetId()] = 0
	}
	if err := d.models.operate(ctx, http.MethodPost, "/v1beta1/"+e.GetName()+":deployModel", &pb.DeployModelRequest{DeployedModel: model, TrafficSplit: split}, nil); err != nil {
		return err
	}
	for _, other := range e.GetDeployedModels() {
		if d.keep || e.GetTrafficSplit()[other.GetId()] == 0 {
			continue
		}
		if err := d.models.undeploy(ctx, e.GetName(), other.GetId(), nil); err != nil {
			return fmt.Errorf("%s has all the traffic; undeploy %s: %w", model.GetId(), other.GetId(), err)
		}
		if _, err := fmt.Fprintf(out, "undeployed %s@%s (%s)\n", other.GetDisplayName(), other.GetModelVersionId(), other.GetId()); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "%s@%s has all the traffic of endpoint %s (%s)\n\n  curl -H 'Content-Type: application/json' -d '{\"instances\": [...]}' %s/v1/%s:predict\n  tategu why %s\n",
		v.DisplayName, v.VersionID, e.GetDisplayName(), path.Base(e.GetName()), d.models.base, e.GetName(), quote(e.GetDisplayName()))
	return err
}
