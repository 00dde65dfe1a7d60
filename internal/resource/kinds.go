package resource

// Kinds and states of rows that the API writes and an engine acts on, or the
// other way round. Plain strings, so that both sides need to import only values.
// Rows of the standard kinds are v1beta1 messages under their full name.
const (
	KindModels                  = "models"                  // a Model: its default version
	KindModelVersions           = "modelVersions"           // a Model; key MODEL@VERSION, parent MODEL
	KindModelAliases            = "modelAliases"            // key MODEL@ALIAS, parent MODEL; written when the alias moves, data is the version
	KindEndpoints               = "endpoints"               // an Endpoint
	KindDeployments             = "deployments"             // a DeployModelRequest; key ENDPOINT/deployedModels/ID, parent ENDPOINT
	KindDeploymentOps           = "deploymentOps"           // key as in deployments; data is the operation's name
	KindTorchModels             = "torchModels"             // key as in deployments, parent ENDPOINT; what is registered in a deployed TorchServe, as JSON
	KindRollouts                = "rollouts"                // key as in deployments, parent ENDPOINT; what became of a canary, as JSON
	KindFollows                 = "follows"                 // key: an endpoint that follows an alias; who asked and how far it is, as JSON
	KindShadowReports           = "shadowReports"           // key: an endpoint; how its shadow answered, as JSON
	KindPipelineJobs            = "pipelineJobs"            // a PipelineJob
	KindSchedules               = "schedules"               // a Schedule
	KindScheduledRuns           = "scheduledRuns"           // key: a pipeline job, parent: its schedule; data is the time of the tick, RFC 3339
	KindScheduleQueues          = "scheduleQueues"          // key: a schedule; data is the last tick that waits for a place
	KindCustomJobs              = "customJobs"              // a CustomJob
	KindBatchPredictionJobs     = "batchPredictionJobs"     // a BatchPredictionJob
	KindMetadataStores          = "metadataStores"          // a MetadataStore
	KindContexts                = "contexts"                // a Context
	KindExecutions              = "executions"              // an Execution
	KindArtifacts               = "artifacts"               // an Artifact
	KindIndexes                 = "indexes"                 // an Index
	KindIndexEndpoints          = "indexEndpoints"          // an IndexEndpoint
	KindIndexUpdates            = "indexUpdates"            // key INDEX/updates/ID, parent INDEX; a batch update to be done, as JSON
	StateDeploying              = "DEPLOYING"               // the API asks for replicas
	StateDeployed               = "DEPLOYED"                // serving answered the operation
	StateUndeploying            = "UNDEPLOYING"             // the API asks for the end; serving removes the row
	KindDeploymentResourcePools = "deploymentResourcePools" // a DeploymentResourcePool
)

// DeploymentKey is the key of the rows deployments and deploymentOps.
func DeploymentKey(endpoint, deployedModel string) string {
	return endpoint + "/deployedModels/" + deployedModel
}

// VersionName is the key of a model's version, and the name clients may ask for.
func VersionName(model, version string) string { return model + "@" + version }
