"""Images made without Docker run as model server, custom job and pipeline step."""

import zlib

import pytest
from google.cloud import aiplatform
from kfp import compiler, dsl

pytestmark = pytest.mark.usefixtures("sdk")

SUM = "6.5"  # of numbers.txt


def test_model_server(image):
    model = aiplatform.Model.upload(
        display_name="container",
        serving_container_image_uri=image.reference,
        serving_container_predict_route="/predict",
        serving_container_health_route="/health",
    )
    endpoint = model.deploy(machine_type="n1-standard-2")
    answer = endpoint.predict([[1, 1, 1, 1], [0, 0.5, 0, 0], []])
    assert answer.predictions == [10, 1, 0]
    body = bytes(range(256)) * 7813  # 2 MB
    raw = endpoint.raw_predict(body, {"Content-Type": "application/octet-stream"})
    assert raw.text == f"{len(body)} {zlib.adler32(body)}"
    endpoint.delete(force=True)
    model.delete()


def job(image, *args):
    """A custom job of one container."""
    pool = {
        "machine_spec": {"machine_type": "n1-standard-4"},
        "replica_count": 1,
        "container_spec": {"image_uri": image, "args": list(args)},
    }
    return aiplatform.CustomJob(display_name="container", worker_pool_specs=[pool])


def test_custom_job(image, bucket):
    out = f"/gcs/{bucket.name}/sum.txt"
    done = job(image.reference, "sum", f"/gcs/{bucket.name}/numbers.txt", out)
    done.run()
    assert done.state.name == "JOB_STATE_SUCCEEDED"
    assert bucket.blob("sum.txt").download_as_text() == SUM


def test_custom_job_that_fails_says_why(image, bucket):
    done = job(image.reference, "sum", f"/gcs/{bucket.name}/none", "/tmp/x")
    with pytest.raises(RuntimeError):
        done.run()
    assert done.state.name == "JOB_STATE_FAILED"
    assert f"/gcs/{bucket.name}/none" in done.error.message


def pipeline_job(pipeline, bucket, tmp_path, **values):
    """Compile and run a pipeline; give the outputs that tasks recorded."""
    package = str(tmp_path / "pipeline.yaml")
    compiler.Compiler().compile(pipeline, package)
    run = aiplatform.PipelineJob(
        display_name="container",
        template_path=package,
        pipeline_root=f"gs://{bucket.name}/root",
        parameter_values=values,
        enable_caching=False,
    )
    run.run()
    assert run.state.name == "PIPELINE_STATE_SUCCEEDED"
    return {
        name: value
        for task in run.task_details
        for name, value in dict(task.execution.metadata or {}).items()
    }


def test_container_component(image, bucket, tmp_path):
    @dsl.container_component
    def add(numbers: dsl.Input[dsl.Dataset], total: dsl.OutputPath(float)):
        return dsl.ContainerSpec(
            image=image.reference, args=["sum", numbers.path, total]
        )

    @dsl.pipeline(name="container")
    def pipeline(uri: str):
        numbers = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset)
        add(numbers=numbers.output)

    uri = f"gs://{bucket.name}/numbers.txt"
    outputs = pipeline_job(pipeline, bucket, tmp_path, uri=uri)
    assert outputs["output:total"] == float(SUM)


@pytest.mark.parametrize("image", ["debian"], indirect=True)
def test_lightweight_component(image, bucket, tmp_path):
    """kfp's own way to run a function: its step installs kfp into the container."""

    @dsl.component(base_image=image.reference, packages_to_install=["six==1.17.0"])
    def system(out: dsl.Output[dsl.Dataset]) -> str:
        from pathlib import Path

        import six

        Path(out.path).write_text(six.__version__)
        release = Path("/etc/os-release").read_text()
        return next(x for x in release.splitlines() if x.startswith("ID="))

    @dsl.pipeline(name="lightweight")
    def pipeline():
        system()

    outputs = pipeline_job(pipeline, bucket, tmp_path)
    assert outputs["output:Output"] == "ID=debian"
    kept = [b for b in bucket.list_blobs(prefix="root/") if b.name.endswith("/out")]
    assert [b.download_as_text() for b in kept] == ["1.17.0"]
