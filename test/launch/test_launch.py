"""Components of google-cloud-pipeline-components, against a server of its own."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform, storage
from kfp import compiler

import pipelines

DONE = ("SUCCEEDED", "FAILED", "CANCELLED")


def state(job):
    return job.state.name.removeprefix("PIPELINE_STATE_")


def submit(folder, pipeline, service_account=None, **parameters):
    """Compile a pipeline and start it."""
    path = str(folder / "pipeline.yaml")
    compiler.Compiler().compile(pipeline, path)
    job = aiplatform.PipelineJob(
        display_name=pipeline.name,
        template_path=path,
        parameter_values=parameters,
        enable_caching=False,
    )
    job.submit(service_account=service_account)
    return job


def until(what, seconds=120):
    """Wait until what() is true, and give it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")


def wait(job):
    until(lambda: state(job) in DONE, 300)
    return job


def run(folder, pipeline, **parameters):
    """Run a pipeline that succeeds, and give its tasks by name."""
    job = wait(submit(folder, pipeline, **parameters))
    assert state(job) == "SUCCEEDED", job.gca_resource.error.message
    return tasks(job)


def tasks(job):
    return {t.task_name: t for t in job.task_details}


def made(task):
    """The names of the resources in the task's gcp_resources."""
    text = task.execution.metadata["output:gcp_resources"]
    entries = json.loads(text)["resources"]
    for entry in entries:
        assert entry["resourceUri"].startswith(
            "https://us-central1-aiplatform.googleapis.com/v1/"
        )
    return [(e["resourceType"], e["resourceUri"].partition("/v1/")[2]) for e in entries]


def resource_name(task, output):
    return task.outputs[output].artifacts[0].metadata["resourceName"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """What the pipeline serve made."""
    return run(tmp_path_factory.mktemp("serve"), pipelines.serve)


def test_train(served):
    task = served["train"]
    ((kind, name),) = made(task)
    assert kind == "CustomJob"
    job = aiplatform.CustomJob.get(name)
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    assert job.display_name == "train"
    assert job.labels["team"] == "ranking"
    assert "vertex-ai-pipelines-run-billing-id" in job.labels
    weights = task.outputs["weights"].artifacts[0]
    assert weights.metadata["rows"] == 3
    blob = storage.Blob.from_string(
        weights.uri + "/weights.txt", client=storage.Client()
    )
    assert blob.download_as_bytes() == b'3 said "so"'


def test_upload(served):
    task = served["model-upload"]
    name = resource_name(task, "model")
    ((kind, operation),) = made(task)
    assert kind == "VertexLro"
    assert operation.startswith(name.partition("@")[0] + "/operations/")
    assert name.endswith("@1")
    found = aiplatform.Model(name)
    weights = served["train"].outputs["weights"].artifacts[0]
    assert found.uri == weights.uri
    assert found.container_spec.image_uri == "echo"
    assert found.labels["team"] == "ranking"
    artifact = task.outputs["model"].artifacts[0]
    assert artifact.schema_title == "google.VertexModel"
    assert artifact.uri == f"https://us-central1-aiplatform.googleapis.com/v1/{name}"


def test_deploy_and_predict(served):
    name = resource_name(served["endpoint-create"], "endpoint")
    found = aiplatform.Endpoint(name)
    assert found.gca_resource.description == "by a pipeline"
    answer = found.predict([{"x": 1}])
    assert answer.predictions


def test_next_version(served, tmp_path):
    name = resource_name(served["model-upload"], "model").partition("@")[0]
    uri = served["train"].outputs["weights"].artifacts[0].uri
    ran = run(tmp_path, pipelines.next_version, name=name.rpartition("/")[2], uri=uri)
    assert resource_name(ran["model-get"], "model") == name + "@1"
    assert resource_name(ran["model-upload"], "model") == name + "@2"
    versions = aiplatform.models.ModelRegistry(name).list_versions()
    assert [v.version_id for v in versions] == ["1", "2"]


@pytest.fixture(scope="module")
def instances():
    """Lines to predict."""
    client = storage.Client(project="p")
    bucket = client.create_bucket("instances")
    bucket.blob("in.jsonl").upload_from_string('{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    return bucket


def results(bucket, task):
    """The lines of the output that a batch prediction task names."""
    directory = task.outputs["gcs_output_directory"].artifacts[0].uri
    ((kind, name),) = made(task)
    assert kind == "BatchPredictionJob"
    assert resource_name(task, "batchpredictionjob") == name
    prefix = directory.removeprefix(f"gs://{bucket.name}/")
    lines = []
    for blob in bucket.list_blobs(prefix=prefix):
        if "prediction.results" in blob.name:
            lines += blob.download_as_bytes().decode().splitlines()
    return [json.loads(line) for line in lines]


def test_batch_prediction(served, instances, tmp_path):
    name = resource_name(served["model-upload"], "model").partition("@")[0]
    ran = run(
        tmp_path,
        pipelines.score,
        name=name.rpartition("/")[2],
        source="gs://instances/in.jsonl",
        target="gs://instances/out",
    )
    assert len(results(instances, ran["model-batch-predict"])) == 3


def test_batch_prediction_by_an_unmanaged_model(served, instances, tmp_path):
    uri = served["train"].outputs["weights"].artifacts[0].uri
    ran = run(
        tmp_path,
        pipelines.score_unmanaged,
        uri=uri,
        source="gs://instances/in.jsonl",
        target="gs://instances/unmanaged",
    )
    assert len(results(instances, ran["model-batch-predict"])) == 3


def test_container_component_as_a_job(tmp_path):
    ran = run(tmp_path, pipelines.container_job, words='"wide" world')
    assert ran["greet"].execution.metadata["output:greeting"] == 'hello "wide" world'


def test_component_alone_is_a_pipeline(tmp_path):
    # Its defaults, with their placeholders, are then those of the run.
    ran = run(tmp_path, pipelines.greet_job, words="you")
    outputs = [t.execution.metadata.get("output:greeting") for t in ran.values()]
    assert "hello you" in outputs


def test_failing_job(tmp_path):
    job = wait(submit(tmp_path, pipelines.failing_job))
    assert state(job) == "FAILED"
    message = tasks(job)["custom-training-job"].error.message
    assert "customJobs/" in message
    assert "exit code 17" in message
    assert "cause: user code" in message
    assert message.count("no room for the index") == 1


def test_retry_makes_a_new_job_where_the_first_failed(tmp_path):
    before = len(aiplatform.CustomJob.list())
    # The counter is read back through the object store, by its name in the command.
    storage.Client(project="p").create_bucket("counters")
    run(tmp_path, pipelines.stubborn_job_for("/gcs/counters/tries/one.txt"))
    assert len(aiplatform.CustomJob.list()) == before + 2


def launched(job):
    """The custom job that a run has launched, once it runs."""

    def running():
        assert state(job) not in DONE, job.gca_resource.error.message
        jobs = [
            j
            for j in aiplatform.CustomJob.list()
            if j.labels.get("vertex-ai-pipelines-run-billing-id")
            == job.labels["vertex-ai-pipelines-run-billing-id"]
        ]
        return jobs if jobs and jobs[0].state.name == "JOB_STATE_RUNNING" else None

    return until(running)


def test_cancel_of_the_run_cancels_the_job(tmp_path):
    job = submit(tmp_path, pipelines.long_job)
    (custom,) = launched(job)
    job.cancel()
    wait(job)
    assert state(job) == "CANCELLED"
    until(lambda: custom.state.name == "JOB_STATE_CANCELLED", 30)


def launchers():
    """The processes of `tategu launch` below this server."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            len(words) > 1
            and words[1] == b"launch"
            and words[0] == os.environ["TATEGU_BIN"].encode()
        ):
            found.append(int(entry.name))
    return found


def test_killed_launcher_finds_its_job(tmp_path):
    job = submit(tmp_path, pipelines.long_job, seconds=6)
    launched(job)
    (pid,) = launchers()
    os.kill(pid, signal.SIGKILL)
    wait(job)
    assert state(job) == "SUCCEEDED", job.gca_resource.error.message
    label = job.labels["vertex-ai-pipelines-run-billing-id"]
    jobs = [
        j
        for j in aiplatform.CustomJob.list()
        if j.labels.get("vertex-ai-pipelines-run-billing-id") == label
    ]
    assert len(jobs) == 1


def test_killed_launcher_and_wrapper(tmp_path):
    job = submit(tmp_path, pipelines.long_job, seconds=6)
    launched(job)
    (pid,) = launchers()
    status = Path(f"/proc/{pid}/status").read_text()
    wrapper = int(re.search(r"PPid:\s+(\d+)", status).group(1))
    assert b"exec-workload" in Path(f"/proc/{wrapper}/cmdline").read_bytes()
    os.kill(wrapper, signal.SIGKILL)
    wait(job)
    assert state(job) == "SUCCEEDED", job.gca_resource.error.message
    label = job.labels["vertex-ai-pipelines-run-billing-id"]
    jobs = [
        j
        for j in aiplatform.CustomJob.list()
        if j.labels.get("vertex-ai-pipelines-run-billing-id") == label
    ]
    assert len(jobs) == 1


def test_killed_server_and_launcher(server, tmp_path):
    job = submit(tmp_path, pipelines.long_job, seconds=8)
    launched(job)
    (pid,) = launchers()
    server.kill()
    os.kill(pid, signal.SIGKILL)
    server.again()
    wait(job)
    assert state(job) == "SUCCEEDED", job.gca_resource.error.message
    label = job.labels["vertex-ai-pipelines-run-billing-id"]
    jobs = [
        j
        for j in aiplatform.CustomJob.list()
        if j.labels.get("vertex-ai-pipelines-run-billing-id") == label
    ]
    assert len(jobs) == 1


def test_launcher_outlives_a_killed_server(server, tmp_path):
    job = submit(tmp_path, pipelines.long_job, seconds=6)
    launched(job)
    before = launchers()
    server.kill()
    server.again()
    assert launchers() == before
    wait(job)
    assert state(job) == "SUCCEEDED", job.gca_resource.error.message


def test_wait_for_a_job(tmp_path):
    job = submit(tmp_path, pipelines.long_job, seconds=3)
    (custom,) = launched(job)
    text = json.dumps(
        {
            "resources": [
                {
                    "resourceType": "CustomJob",
                    "resourceUri": f"https://us-central1-aiplatform.googleapis.com/v1/{custom.resource_name}",
                }
            ]
        }
    )
    ran = run(tmp_path, pipelines.wait_for, resources=text)
    assert custom.state.name == "JOB_STATE_SUCCEEDED"
    assert made(ran["wait-gcp-resources"]) == [("CustomJob", custom.resource_name)]
    wait(job)


def test_wait_for_a_dataflow_job_is_refused(tmp_path):
    text = json.dumps(
        {
            "resources": [
                {
                    "resourceType": "DataflowJob",
                    "resourceUri": "https://x/v1b3/projects/p",
                }
            ]
        }
    )
    job = wait(submit(tmp_path, pipelines.wait_for, resources=text))
    assert state(job) == "FAILED"
    assert (
        "DataflowJob is not supported by tategu"
        in tasks(job)["wait-gcp-resources"].error.message
    )


def test_account_without_the_right_is_refused(tmp_path):
    stranger = "stranger@elsewhere.iam.tategu.internal"
    job = wait(submit(tmp_path, pipelines.failing_job, service_account=stranger))
    assert state(job) == "FAILED"
    message = job.gca_resource.error.message
    assert "storage.objects.create" in message
    assert "in the policy of gs://staging" in message
    assert "cause: input" in message

    bucket = storage.Client(project="p").bucket("staging")
    policy = bucket.get_iam_policy(requested_policy_version=3)
    member = f"serviceAccount:{stranger}"
    policy.bindings.append(
        {"role": "roles/storage.objectUser", "members": {member}}
    )
    bucket.set_iam_policy(policy)
    job = wait(submit(tmp_path, pipelines.failing_job, service_account=stranger))
    assert state(job) == "FAILED"
    message = tasks(job)["custom-training-job"].error.message
    assert "aiplatform.customJobs.create" in message
    assert "cause: input" in message
    assert aiplatform.CustomJob.list(filter='display_name="nobody"') == []


@pytest.mark.parametrize(
    ("pipeline", "task", "module"),
    [
        (pipelines.query, "bigquery-query-job", "bigquery.query_job.launcher"),
        (
            pipelines.tune,
            "hyperparameter-tuning-job",
            "hyperparameter_tuning_job.launcher",
        ),
        (
            pipelines.mail,
            "vertex-pipelines-notification-email",
            "vertex_notification_email.executor",
        ),
        (pipelines.export, "model-export", "model.export_model.launcher"),
    ],
)
def test_what_is_not_here_is_refused_at_create(tmp_path, pipeline, task, module):
    parameters = {"name": "m"} if pipeline is pipelines.export else {}
    with pytest.raises(
        (exceptions.MethodNotImplemented, exceptions.NotFound)
    ) as refused:
        submit(tmp_path, pipeline, **parameters)
    assert task in str(refused.value)
    assert f"google_cloud_pipeline_components.container.v1.{module}" in str(
        refused.value
    )


def test_take_down(served, tmp_path):
    name = resource_name(served["model-upload"], "model").partition("@")[0]
    endpoint_name = resource_name(served["endpoint-create"], "endpoint")
    run(
        tmp_path,
        pipelines.take_down,
        name=name.rpartition("/")[2],
        endpoint_name=endpoint_name,
    )
    with pytest.raises(exceptions.NotFound):
        print(aiplatform.Endpoint(endpoint_name).gca_resource)
    with pytest.raises(exceptions.NotFound):
        aiplatform.Model(name)
