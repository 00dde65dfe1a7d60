"""Container components with the command form of google-cloud-pipeline-components.

The components themselves are in test/launch, in an environment of their own.
"""

import json

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform
from kfp import compiler, dsl

PREFIX = "google_cloud_pipeline_components.container.v1."
JOB = {
    "display_name": "launched",
    "job_spec": {
        "worker_pool_specs": [
            {
                "machine_spec": {"machine_type": "n1-standard-4"},
                "replica_count": 1,
                "container_spec": {
                    "image_uri": "python:3.11",
                    "command": ["python3", "-c"],
                    "args": ["print('trained'); raise SystemExit(CODE)"],
                },
            }
        ]
    },
}


@dsl.container_component
def launch(
    payload: str,
    gcp_resources: dsl.OutputPath(str),
    project: str = "{{$.pipeline_google_cloud_project_id}}",
):
    return dsl.ContainerSpec(
        image="none",
        command=["python3", "-u", "-m", PREFIX + "custom_job.launcher"],
        args=[
            *("--type", "CustomJob", "--payload", payload, "--project", project),
            *("--location", "us-central1", "--gcp_resources", gcp_resources),
        ],
    )


@dsl.container_component
def query():
    return dsl.ContainerSpec(
        image="none",
        command=["python3", "-u", "-m", PREFIX + "bigquery.query_job.launcher"],
    )


def pipeline_job(pipeline, folder, bucket, **parameters):
    """The compiled pipeline as a job that is not submitted yet."""
    path = str(folder / "pipeline.yaml")
    compiler.Compiler().compile(pipeline, path)
    return aiplatform.PipelineJob(
        display_name="launch",
        template_path=path,
        pipeline_root=f"gs://{bucket.name}/root",
        parameter_values=parameters,
        enable_caching=False,
    )


@dsl.pipeline(name="launch")
def launches(payload: str):
    launch(payload=payload)


@dsl.pipeline(name="query")
def queries():
    query()


def test_launched_job(bucket, tmp_path):
    payload = json.dumps(JOB).replace("CODE", "0")
    job = pipeline_job(launches, tmp_path, bucket, payload=payload)
    job.run()
    task = next(t for t in job.task_details if t.task_name == "launch")
    text = task.execution.metadata["output:gcp_resources"]
    uri = json.loads(text)["resources"][0]["resourceUri"]
    made = aiplatform.CustomJob.get(uri.partition("/v1/")[2])
    assert made.display_name == "launched"
    assert made.state.name == "JOB_STATE_SUCCEEDED"


def test_launched_job_fails(bucket, tmp_path):
    payload = json.dumps(JOB).replace("CODE", "17")
    job = pipeline_job(launches, tmp_path, bucket, payload=payload)
    with pytest.raises(RuntimeError):
        job.run()
    task = next(t for t in job.task_details if t.task_name == "launch")
    assert "exit code 17" in task.error.message
    assert task.error.message.count("trained") == 1


def test_component_of_the_cloud_is_refused(bucket, tmp_path):
    job = pipeline_job(queries, tmp_path, bucket)
    with pytest.raises(exceptions.GoogleAPICallError) as refused:
        job.submit()
    assert refused.value.code == 501
    assert "query" in str(refused.value)
    assert PREFIX + "bigquery.query_job.launcher" in str(refused.value)
