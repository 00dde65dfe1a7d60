"""CustomJob and BatchPredictionJob."""

import json

import pytest
from google.cloud import aiplatform


def custom_job(command, args=(), image="python:3.11", **more):
    """A custom job of one worker; more is the caller's place and credentials."""
    container = {"image_uri": image, "command": list(command), "args": list(args)}
    pool = {
        "machine_spec": {"machine_type": "n1-standard-4"},
        "replica_count": 1,
        "container_spec": container,
    }
    return aiplatform.CustomJob(
        display_name="cj", worker_pool_specs=[pool], **more
    )


def test_custom_job_writes_through_gcs(bucket):
    script = (
        "import os, sys; p = sys.argv[1]; os.makedirs(os.path.dirname(p), "
        "exist_ok=True); open(p, 'w').write('done')"
    )
    target = f"/gcs/{bucket.name}/out/result.txt"
    job = custom_job(["python3", "-c", script], [target])
    job.run()
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    assert bucket.blob("out/result.txt").download_as_bytes() == b"done"


def test_custom_job_failure_has_exit_code_and_last_lines(mode):
    script = "import sys; print('the disk is full'); sys.exit(17)"
    job = custom_job(["python3", "-c", script])
    with pytest.raises(RuntimeError):
        job.run()
    assert job.state.name == "JOB_STATE_FAILED"
    assert "17" in job.error.message
    assert "the disk is full" in job.error.message


def test_custom_job_from_script(bucket, tmp_path):
    script = tmp_path / "task.py"
    script.write_text("import numpy, sys\nprint(numpy.arange(3).sum(), sys.argv[1])\n")
    job = aiplatform.CustomJob.from_local_script(
        display_name="script",
        script_path=str(script),
        container_uri="python:3.11",
        requirements=["numpy"],
        args=["word"],
        staging_bucket=f"gs://{bucket.name}",
    )
    job.run()
    assert job.state.name == "JOB_STATE_SUCCEEDED"


def predicted(bucket, model, rows):
    """What a batch prediction gives for each of some rows."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    bucket.blob("in.jsonl").upload_from_string(text)
    job = model.batch_predict(
        job_display_name="bp",
        gcs_source=f"gs://{bucket.name}/in.jsonl",
        gcs_destination_prefix=f"gs://{bucket.name}/out",
        instances_format="jsonl",
        predictions_format="jsonl",
        machine_type="n1-standard-2",
    )
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    assert job.completion_stats.successful_count == len(rows)
    by_instance = {tuple(r["instance"]): r["prediction"] for r in results(bucket, job)}
    return [by_instance[tuple(row)] for row in rows]


def results(bucket, job):
    """The lines of a batch prediction's result files."""
    folder = job.output_info.gcs_output_directory
    prefix = folder.removeprefix(f"gs://{bucket.name}/")
    return [
        json.loads(line)
        for blob in bucket.client.list_blobs(bucket.name, prefix=prefix)
        if "prediction.results" in blob.name
        for line in blob.download_as_bytes().decode().splitlines()
    ]


@pytest.mark.parametrize("kind", ["lightgbm", "echo"])
def test_batch_prediction(kind, bucket, lightgbm_model, request):
    fixture = {"lightgbm": "served_model", "echo": "echo_model"}[kind]
    model = request.getfixturevalue(fixture)
    _, rows, scores = lightgbm_model
    want = scores if kind == "lightgbm" else rows
    got = predicted(bucket, model, rows)
    for a, b in zip(got, want, strict=True):
        assert a == pytest.approx(b, abs=1e-12)


def test_batch_prediction_of_xgboost(bucket, served_xgboost, xgboost_model):
    _, rows, want = xgboost_model
    assert predicted(bucket, served_xgboost, rows) == want
