// Package gcpc knows the container components of google-cloud-pipeline-components:
// which module a command runs, whether tategu runs it itself, and how the arguments
// and payloads of its launchers are read (google_cloud_pipeline_components/container
// of version 2.22.0 is the specification). It calls nobody; package launch does.
package gcpc

import (
	"path"
	"slices"
	"strings"

	"tategu/internal/resource"
)

// Prefix starts the names of all its Python modules.
const Prefix = "google_cloud_pipeline_components."

// ModuleOf gives the module of google-cloud-pipeline-components that a container's
// command runs: python3 -u -m MODULE. ok is false for every other command.
func ModuleOf(command []string) (module string, ok bool) {
	if len(command) == 0 || !strings.HasPrefix(path.Base(command[0]), "python") {
		return "", false
	}
	i := slices.Index(command, "-m")
	if i < 0 || i+1 == len(command) || !strings.HasPrefix(command[i+1], Prefix) {
		return "", false
	}
	return command[i+1], true
}

// Launchers that tategu runs, by the part of their name that says what they do.
const (
	CustomJob        = "container.v1.custom_job.launcher"
	CustomJobPreview = "container.preview.custom_job.launcher"
	BatchPrediction  = "container.v1.batch_prediction_job.launcher"
	UploadModel      = "container.v1.model.upload_model.launcher"
	GetModel         = "container.v1.model.get_model.launcher"
	DeleteModel      = "container.v1.model.delete_model.launcher"
	CreateEndpoint   = "container.v1.endpoint.create_endpoint.launcher"
	DeleteEndpoint   = "container.v1.endpoint.delete_endpoint.launcher"
	DeployModel      = "container.v1.endpoint.deploy_model.launcher"
	UndeployModel    = "container.v1.endpoint.undeploy_model.launcher"
	WaitResources    = "container.v1.wait_gcp_resources.launcher"
)

// Launchers that are known and lack what they need here.
const (
	exportModel = "container.v1.model.export_model.launcher"
	tuning      = "container.v1.hyperparameter_tuning_job.launcher"
	email       = "container.v1.vertex_notification_email.executor"
)

// Served lists the launchers that tategu runs, by name.
func Served() []string {
	return []string{
		BatchPrediction, CreateEndpoint, CustomJob, CustomJobPreview, DeleteEndpoint, DeleteModel, DeployModel, GetModel, UndeployModel,
		UploadModel, WaitResources,
	}
}

// Check refuses by name a module that tategu does not run.
func Check(module string) error {
	short := strings.TrimPrefix(module, Prefix)
	if slices.Contains(Served(), short) {
		return nil
	}
	return resource.Unimplemented(module + lacking(short)).
		WithHint("docs/guide/pipelines.md lists the components of google-cloud-pipeline-components that run; do the step in a component of your own instead")
}

// lacking says what a module would need.
func lacking(short string) string {
	switch short {
	case exportModel:
		return " (ModelService.ExportModel)"
	case tuning:
		return " (HyperparameterTuningJobs)"
	case email:
		return " (sending mail)"
	}
	for _, service := range []string{"bigquery", "dataproc", "dataflow", "automl", "dataset"} {
		if strings.Contains(short, "."+service) {
			return " (" + service + " is a service of the cloud)"
		}
	}
	return ""
}
