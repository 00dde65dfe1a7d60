package batch

import (
	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

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
	for _, uri := range job.GetInputConfig().GetGcsSource().GetUris() {
		if _, err := parseURI(uri); err != nil {
			return resource.Invalid(field+"input_config.gcs_source.uris", "%q is not of the form gs://BUCKET/NAME", uri)
		}
	}
	if prefix := job.GetOutputConfig().GetGcsDestination().GetOutputUriPrefix(); prefix == "" {
		return resource.Invalid(field+"output_config.gcs_destination.output_uri_prefix", "there is no output URI")
	} else if _, err := parseURI(prefix); err != nil {
		return resource.Invalid(field+"output_config.gcs_destination.output_uri_prefix", "%q is not of the form gs://BUCKET/PREFIX", prefix)
	}
	c := job.GetInstanceConfig()
	switch {
	case c.GetInstanceType() != "" && c.GetInstanceType() != "object" && c.GetInstanceType() != "array":
		return resource.Invalid(field+"instance_config.instance_type", "%q is neither object nor array", c.GetInstanceType())
	case len(c.GetIncludedFields()) > 0 && len(c.GetExcludedFields()) > 0:
		return resource.Invalid(field+"instance_config.excluded_fields", "included_fields and excluded_fields exclude each other")
	case job.GetManualBatchTuningParameters().GetBatchSize() < 0:
		return resource.Invalid(field+"manual_batch_tuning_parameters.batch_size", "batch_size is negative")
	}
	return nil
}
