"""Pipelines of unmodified google-cloud-pipeline-components, compiled at test time."""

from google_cloud_pipeline_components.types import artifact_types
from google_cloud_pipeline_components.v1 import (
    batch_predict_job,
    bigquery,
    custom_job,
    endpoint,
    hyperparameter_tuning_job,
    model,
    vertex_notification_email,
    wait_gcp_resources,
)
from kfp import dsl

IMAGE = "python:3.11"


@dsl.component(base_image=IMAGE)
def write_rows(rows: int, table: dsl.Output[dsl.Dataset]):
    with open(table.path, "w") as f:
        f.write("row\n" * rows)


@dsl.component(base_image=IMAGE)
def train(
    table: dsl.Input[dsl.Dataset], note: str, weights: dsl.Output[dsl.Model]
) -> str:
    import os

    with open(table.path) as f:
        rows = len(f.read().split())
    os.makedirs(weights.path, exist_ok=True)
    with open(weights.path + "/weights.txt", "w") as f:
        f.write(f"{rows} {note}")
    weights.metadata["rows"] = rows
    return weights.uri


train_job = custom_job.create_custom_training_job_from_component(
    train, display_name="train", labels={"team": "ranking"}
)


@dsl.container_component
def greet(words: str, greeting: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["sh", "-c", 'mkdir -p "$(dirname "$1")"; printf "%s" "$0" > "$1"'],
        args=[dsl.ConcatPlaceholder(["hello ", words]), greeting],
    )


greet_job = custom_job.create_custom_training_job_from_component(greet)


def shell_job(script: str, **more):
    """A custom job of one worker that runs a shell script."""
    pool = {
        "machine_spec": {"machine_type": "n1-standard-4"},
        "replica_count": 1,
        "container_spec": {"image_uri": IMAGE, "command": ["sh", "-c", script]},
    }
    return custom_job.CustomTrainingJobOp(
        display_name="shell", worker_pool_specs=[pool], **more
    )


@dsl.pipeline(name="serve")
def serve(rows: int = 3, note: str = 'said "so"'):
    """Train, register what came of it, and serve it."""
    table = write_rows(rows=rows)
    trained = train_job(table=table.output, note=note)
    unmanaged = dsl.importer(
        artifact_uri=trained.outputs["Output"],
        artifact_class=artifact_types.UnmanagedContainerModel,
        metadata={"containerSpec": {"imageUri": "echo"}},
    )
    uploaded = model.ModelUploadOp(
        display_name="served",
        unmanaged_container_model=unmanaged.output,
        labels={"team": "ranking"},
    )
    made = endpoint.EndpointCreateOp(display_name="served", description="by a pipeline")
    endpoint.ModelDeployOp(
        model=uploaded.outputs["model"],
        endpoint=made.outputs["endpoint"],
        dedicated_resources_machine_type="n1-standard-4",
        dedicated_resources_min_replica_count=1,
        dedicated_resources_max_replica_count=1,
    )


@dsl.pipeline(name="next-version")
def next_version(name: str, uri: str):
    """Upload a further version of a model that there is."""
    found = model.ModelGetOp(model_name=name)
    unmanaged = dsl.importer(
        artifact_uri=uri,
        artifact_class=artifact_types.UnmanagedContainerModel,
        metadata={"containerSpec": {"imageUri": "echo"}},
    )
    model.ModelUploadOp(
        display_name="served",
        parent_model=found.outputs["model"],
        unmanaged_container_model=unmanaged.output,
    )


@dsl.pipeline(name="score")
def score(name: str, source: str, target: str):
    """Batch prediction by a registered model."""
    found = model.ModelGetOp(model_name=name)
    batch_predict_job.ModelBatchPredictOp(
        job_display_name="score",
        model=found.outputs["model"],
        gcs_source_uris=[source],
        gcs_destination_output_uri_prefix=target,
        machine_type="n1-standard-4",
        starting_replica_count=1,
        max_replica_count=1,
    )


@dsl.pipeline(name="score-unmanaged")
def score_unmanaged(uri: str, source: str, target: str):
    """Batch prediction by a model that is not registered."""
    unmanaged = dsl.importer(
        artifact_uri=uri,
        artifact_class=artifact_types.UnmanagedContainerModel,
        metadata={"containerSpec": {"imageUri": "echo"}},
    )
    batch_predict_job.ModelBatchPredictOp(
        job_display_name="score",
        unmanaged_container_model=unmanaged.output,
        gcs_source_uris=[source],
        gcs_destination_output_uri_prefix=target,
        machine_type="n1-standard-4",
        starting_replica_count=1,
        max_replica_count=1,
    )


@dsl.pipeline(name="take-down")
def take_down(name: str, endpoint_name: str):
    """Undeploy, and delete the endpoint and the model."""
    found = model.ModelGetOp(model_name=name)
    served = dsl.importer(
        artifact_uri="https://example.com/endpoint",
        artifact_class=artifact_types.VertexEndpoint,
        metadata={"resourceName": endpoint_name},
        reimport=True,
    )
    off = endpoint.ModelUndeployOp(model=found.outputs["model"], endpoint=served.output)
    gone = endpoint.EndpointDeleteOp(endpoint=served.output).after(off)
    model.ModelDeleteOp(model=found.outputs["model"]).after(gone)


@dsl.pipeline(name="container-job")
def container_job(words: str):
    """A custom job of a container component."""
    greet_job(words=words)


@dsl.pipeline(name="failing-job")
def failing_job():
    """A custom job that fails."""
    shell_job("echo no room for the index; exit 17")


def stubborn_job_for(counter: str):
    """A custom job that fails at first: the task is tried again."""
    script = (
        f"mkdir -p $(dirname {counter}); echo x >> {counter}; "
        f"test $(wc -l < {counter}) = 2"
    )

    @dsl.pipeline(name="stubborn-job")
    def stubborn_job():
        shell_job(script).set_retry(num_retries=2, backoff_duration="0s")

    return stubborn_job


@dsl.pipeline(name="long-job")
def long_job(seconds: int = 600):
    """A custom job that takes its time."""
    pool = {
        "machine_spec": {"machine_type": "n1-standard-4"},
        "replica_count": 1,
        "container_spec": {
            "image_uri": IMAGE,
            "command": ["sh", "-c", 'echo waiting; sleep "$0"'],
            "args": [seconds],
        },
    }
    custom_job.CustomTrainingJobOp(display_name="long", worker_pool_specs=[pool])


@dsl.pipeline(name="wait-for")
def wait_for(resources: str):
    """Wait for what another task made."""
    wait_gcp_resources.WaitGcpResourcesOp(gcp_resources=resources)


@dsl.pipeline(name="query")
def query():
    """A component whose service is not here."""
    bigquery.BigqueryQueryJobOp(query="SELECT 1")


@dsl.pipeline(name="tune")
def tune():
    """Another."""
    hyperparameter_tuning_job.HyperparameterTuningJobRunOp(
        display_name="t",
        study_spec_metrics=[],
        study_spec_parameters=[],
        base_output_directory="gs://x/y",
        max_trial_count=1,
        parallel_trial_count=1,
        worker_pool_specs=[],
    )


@dsl.pipeline(name="mail")
def mail():
    """Another."""
    done = vertex_notification_email.VertexNotificationEmailOp(
        recipients=["a@example.com"]
    )
    with dsl.ExitHandler(done):
        write_rows(rows=1)


@dsl.pipeline(name="export")
def export(name: str):
    """Another."""
    found = model.ModelGetOp(model_name=name)
    model.ModelExportOp(
        model=found.outputs["model"],
        export_format_id="custom-trained",
        artifact_destination="gs://x/y",
    )
