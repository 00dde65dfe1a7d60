"""CustomJob and BatchPredictionJob."""

import json
import time

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


def keyed_job(bucket, model, *, source, instances, results, replicas=1):
    """Run a job whose key is the field id.

    Neither batch_predict nor BatchPredictionJob.create has an instance_config: it is
    a field for the client below them.
    """
    client = aiplatform.initializer.global_config.create_client(
        client_class=aiplatform.utils.JobClientWithOverride
    )
    made = client.create_batch_prediction_job(
        parent=model.resource_name.partition("/models/")[0],
        batch_prediction_job={
            "display_name": source,
            "model": model.resource_name,
            "input_config": {
                "instances_format": instances,
                "gcs_source": {"uris": [f"gs://{bucket.name}/{source}"]},
            },
            "output_config": {
                "predictions_format": results,
                "gcs_destination": {"output_uri_prefix": f"gs://{bucket.name}/out"},
            },
            "instance_config": {"key_field": "id"},
            "dedicated_resources": {
                "machine_spec": {"machine_type": "n1-standard-2"},
                "starting_replica_count": replicas,
                "max_replica_count": replicas,
            },
        },
    )
    job = aiplatform.BatchPredictionJob(made.name)
    deadline = time.monotonic() + 120
    while job.state.name in ("JOB_STATE_PENDING", "JOB_STATE_RUNNING"):
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(0.1)
    assert job.state.name == "JOB_STATE_SUCCEEDED", job.error
    return job


def test_batch_prediction_of_csv_with_keys_and_two_replicas(
    bucket, lightgbm_model, served_model
):
    _, rows, scores = lightgbm_model
    header = ",".join(["id", *(f"c{i}" for i in range(len(rows[0])))])
    lines = [header, *(f"r{n}," + ",".join(map(str, r)) for n, r in enumerate(rows))]
    lines.insert(3, "short,1")
    bucket.blob("in.csv").upload_from_string("\n".join(lines))
    job = keyed_job(
        bucket, served_model, source="in.csv", instances="csv", results="csv", replicas=2
    )
    stats = job.completion_stats
    assert (stats.successful_count, stats.failed_count) == (len(rows), 1)
    assert "line 4 of" in job.partial_failures[0].message
    names = {b.name.rpartition("/")[2]: b for b in job.iter_outputs()}
    assert sorted(names) == [
        "prediction.errors_stats-00000-of-00001",
        "prediction.results-00000-of-00001",
    ]
    text = names["prediction.results-00000-of-00001"].download_as_bytes().decode()
    got = [line.split(",") for line in text.splitlines()]
    assert got[0] == ["key", "prediction"]
    assert [key for key, _ in got[1:]] == [f"r{n}" for n in range(len(rows))]
    assert [float(p) for _, p in got[1:]] == pytest.approx(scores, abs=1e-12)
    (error,) = (
        names["prediction.errors_stats-00000-of-00001"].download_as_bytes().splitlines()
    )
    error = json.loads(error)
    assert error["error"]["code"] == 3
    assert error["source"] == {"uri": f"gs://{bucket.name}/in.csv", "line": 4}


def test_batch_prediction_into_parquet(bucket, lightgbm_model, served_model):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    import io

    _, rows, scores = lightgbm_model
    table = {f"c{i}": [row[i] for row in rows] for i in range(len(rows[0]))}
    file = io.BytesIO()
    import pyarrow as pa

    pyarrow.write_table(pa.table({"id": list(range(len(rows))), **table}), file)
    bucket.blob("in.parquet").upload_from_string(file.getvalue())
    job = keyed_job(
        bucket, served_model, source="in.parquet", instances="parquet", results="parquet"
    )
    (blob,) = (b for b in job.iter_outputs() if "prediction.results" in b.name)
    got = pyarrow.read_table(io.BytesIO(blob.download_as_bytes())).to_pydict()
    assert got["key"] == list(range(len(rows)))
    assert got["prediction"] == pytest.approx(scores, abs=1e-12)
