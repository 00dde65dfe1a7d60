"""What a job does with objects, it does as its service account."""

import json

import pytest
from google.cloud import aiplatform

from conftest import PROJECT
from test_jobs import custom_job

# Of another project, so that it has the rights of its bindings alone.
ACCOUNT = "tenant@elsewhere.iam.tategu.internal"
COPY = (
    "import os, sys; text = open(sys.argv[1]).read() if sys.argv[1] else 'made'; "
    "os.makedirs(os.path.dirname(sys.argv[2]), exist_ok=True); open(sys.argv[2], 'w').write(text)"
)


@pytest.fixture
def closed(bucket):
    """A bucket of the project that the account has no role on, with one object."""
    other = bucket.client.create_bucket(f"closed-{bucket.name}", project=PROJECT)
    other.blob("secret").upload_from_string("secret")
    yield other
    other.delete(force=True)


@pytest.fixture
def opened(bucket):
    """The test's bucket, in which the account may work."""
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings.append(
        {"role": "roles/storage.objectUser", "members": {f"serviceAccount:{ACCOUNT}"}}
    )
    bucket.set_iam_policy(policy)
    bucket.blob("in").upload_from_string("given")
    return bucket


def refused(job, bucket, permission):
    with pytest.raises(RuntimeError):
        job.run(service_account=ACCOUNT)
    assert job.state.name == "JOB_STATE_FAILED"
    assert job.error.code == 7  # PERMISSION_DENIED
    for part in (ACCOUNT, f"gs://{bucket.name}/", permission, "cause: input"):
        assert part in job.error.message


def test_custom_job(opened, closed):
    def copy(source, target):
        return custom_job(["python3", "-c", COPY], [source, target])

    copy(f"/gcs/{opened.name}/in", f"/gcs/{opened.name}/out/a").run(service_account=ACCOUNT)
    assert opened.blob("out/a").download_as_bytes() == b"given"
    secret = copy(f"/gcs/{closed.name}/secret", f"/gcs/{opened.name}/out/stolen")
    refused(secret, closed, "storage.objects.get")
    assert not opened.blob("out/stolen").exists()
    copy("", f"/gcs/{closed.name}/new").run()  # the default account of the project may
    assert closed.blob("new").download_as_bytes() == b"made"


def test_write_elsewhere_leaves_nothing(opened, closed):
    """The name of the bucket is made where nobody sees it beforehand."""
    script = (
        "import os, sys; [(os.makedirs('/'.join(['/gcs', b, 'out'])), "
        "open('/'.join(['/gcs', b, 'out', 'x']), 'w').write('x')) for b in sys.argv[1:]]"
    )
    job = custom_job(["python3", "-c", script], [opened.name, closed.name])
    refused(job, closed, "storage.objects.create")
    assert not opened.blob("out/x").exists()
    assert not closed.blob("out/x").exists()


def pipeline(path, script, *args):
    executor = {"image": "python:3.11", "command": ["python3", "-c", script], "args": list(args)}
    path.write_text(json.dumps({
        "schemaVersion": "2.1.0",
        "pipelineInfo": {"name": "touch"},
        "components": {"comp": {"executorLabel": "exec"}},
        "deploymentSpec": {"executors": {"exec": {"container": executor}}},
        "root": {"dag": {"tasks": {"touch": {
            "taskInfo": {"name": "touch"}, "componentRef": {"name": "comp"}}}}},
    }))
    return str(path)


def test_pipeline(opened, closed, tmp_path):
    def run(root, *args):
        template = pipeline(tmp_path / "p.json", COPY, *args)
        job = aiplatform.PipelineJob(display_name="touch", template_path=template, pipeline_root=root)
        job.submit(service_account=ACCOUNT)
        try:
            job.wait()
        except RuntimeError:
            pass
        return job

    mine, theirs = f"gs://{opened.name}", f"gs://{closed.name}"
    done = run(f"{mine}/root", f"/gcs/{opened.name}/in", f"/gcs/{opened.name}/copied")
    assert done.state.name == "PIPELINE_STATE_SUCCEEDED"
    assert opened.blob("copied").download_as_bytes() == b"given"
    for root, args, said in (
        (f"{theirs}/root", ["", f"/gcs/{opened.name}/not"], f"{theirs}/root"),
        (f"{mine}/root", [f"/gcs/{closed.name}/secret", f"/gcs/{opened.name}/not"], f"{theirs}/secret"),
    ):
        job = run(root, *args)
        assert job.state.name == "PIPELINE_STATE_FAILED"
        error = job.gca_resource.error
        assert error.code == 7 and ACCOUNT in error.message and said in error.message
        assert not opened.blob("not").exists()
    assert [b.name for b in closed.list_blobs()] == ["secret"]
