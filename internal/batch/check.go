package batch

import (
	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"

	"tategu/internal/batch/score"
	"tategu/internal/resource"
)

// Finished reports a state that a job does not leave.
func Finished(s pb.JobState) bool {
	switch s {
	case pb.JobState_JOB_STATE_SUCCEEDED, pb.JobState_JOB_STATE_FAILED, pb.JobState_JOB_STATE_CANCELLED,
		pb.JobState_JOB_STATE_EXPIRED, pb.JobState_JOB_STATE_PARTIALLY_SUCCEEDED:
		return true
	default:
		return false
	}
}

// Check refuses a job whose configuration makes no sense to the engine.
func Check(job *pb.BatchPredictionJob) error {
	const field = "batch_prediction_job."
	in, out := Formats(job)
	switch in {
	case score.JSONL, score.CSV, score.Parquet, score.FileList:
	default:
		return formatError(field+"input_config.instances_format", in, "jsonl, csv, file-list, or parquet")
	}
	switch out {
	case score.JSONL, score.CSV, score.Parquet:
	case formatTable:
		if _, _, _, err := parseTable(job.GetOutputConfig().GetBigqueryDestination().GetOutputUri()); err != nil {
			return err
		}
	default:
		return formatError(field+"output_config.predictions_format", out, "jsonl, csv, or parquet")
	}
	for _, uri := range job.GetInputConfig().GetGcsSource().GetUris() {
		if _, err := parseURI(uri); err != nil {
			return resource.Invalid(field+"input_config.gcs_source.uris", "%q is not of the form gs://BUCKET/NAME", uri)
		}
	}
	if prefix := job.GetOutputConfig().GetGcsDestination().GetOutputUriPrefix(); out == formatTable {
		if prefix != "" {
			return resource.Invalid(field+"output_config.predictions_format", "predictions_format is %s, and the destination is no table", formatTable)
		}
	} else if prefix == "" {
		return resource.Invalid(field+"output_config.gcs_destination.output_uri_prefix", "there is no output URI")
	} else if _, err := parseURI(prefix); err != nil {
		return resource.Invalid(field+"output_config.gcs_destination.output_uri_prefix", "%q is not of the form gs://BUCKET/PREFIX", prefix)
	}
	c := Instances(job)
	switch {
	case c.GetInstanceType() != "" && c.GetInstanceType() != "object" && c.GetInstanceType() != "array":
		return resource.Invalid(field+"instance_config.instance_type", "%q is neither object nor array", c.GetInstanceType())
	case len(c.GetIncludedFields()) > 0 && len(c.GetExcludedFields()) > 0:
		return resource.Invalid(field+"instance_config.excluded_fields", "included_fields and excluded_fields exclude each other")
	case in == score.FileList && (c.GetKeyField() != "" || c.GetInstanceType() != "" || len(c.GetIncludedFields())+len(c.GetExcludedFields()) > 0):
		return resource.Invalid(field+"instance_config", "the instances of a file-list are files: they have no fields")
	case job.GetManualBatchTuningParameters().GetBatchSize() < 0:
		return resource.Invalid(field+"manual_batch_tuning_parameters.batch_size", "batch_size is negative")
	}
	return checkReplicas(job.GetDedicatedResources())
}

// mostReplicas of a job are more than any machine runs: what is kept for each must not
// fill the server's memory.
const mostReplicas = 1000

func checkReplicas(res *pb.BatchDedicatedResources) error {
	const field = "batch_prediction_job.dedicated_resources."
	first, most := res.GetStartingReplicaCount(), res.GetMaxReplicaCount()
	switch {
	case first < 0 || first > mostReplicas:
		return resource.Invalid(field+"starting_replica_count", "starting_replica_count is %d: want up to %d", first, mostReplicas)
	case most < 0 || most > mostReplicas:
		return resource.Invalid(field+"max_replica_count", "max_replica_count is %d: want up to %d", most, mostReplicas)
	case most > 0 && most < first:
		return resource.Invalid(field+"max_replica_count", "max_replica_count is %d, and starting_replica_count %d", most, first)
	}
	return nil
}

func formatError(field, format, want string) error {
	if format == "" {
		return resource.Invalid(field, "the format is not set: want %s", want)
	}
	return resource.Unimplemented("format "+format+" in "+field).WithHint("use %s", want)
}

// Labels of a job for what the SDK does not let through: formats that it does not know,
// and the key field, which its batch_predict has no argument for.
const (
	LabelInput  = "instances_format"
	LabelOutput = "predictions_format"
	LabelKey    = "key_field"
)

// Instances gives the instance_config of a job with the key field of its label, where
// it has one. It is not to be changed.
func Instances(job *pb.BatchPredictionJob) *pb.BatchPredictionJob_InstanceConfig {
	key := job.GetLabels()[LabelKey]
	if key == "" {
		return job.GetInstanceConfig()
	}
	c := &pb.BatchPredictionJob_InstanceConfig{}
	if job.InstanceConfig != nil {
		c = proto.CloneOf(job.InstanceConfig)
	}
	c.KeyField = key
	return c
}

// Formats gives the formats of a job's input and output: those of its labels, where
// it has such labels.
func Formats(job *pb.BatchPredictionJob) (in, out string) {
	in, out = job.GetInputConfig().GetInstancesFormat(), job.GetOutputConfig().GetPredictionsFormat()
	if v := job.GetLabels()[LabelInput]; v != "" {
		in = v
	}
	if v := job.GetLabels()[LabelOutput]; v != "" {
		out = v
	}
	return in, out
}
