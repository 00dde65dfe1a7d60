"""What a colleague on another machine runs, after `tategu login`.

    client.py work     storage, upload, deploy, predict, raw_predict, PipelineJob
    client.py deploy MODEL ENDPOINT     only tries to deploy

Prints `ok NAME` for each thing that worked; work ends with `made MODEL ENDPOINT`.
"""

import json
import os
import sys
import tempfile
import uuid

from google.api_core import exceptions
from google.cloud import aiplatform, storage
from kfp import compiler, dsl

ROWS = [[1.0, 2.0], {"a": "x"}]


@dsl.component(base_image="python:3.11")
def add(a: int, b: int) -> int:
    return a + b


@dsl.pipeline(name="second-host")
def adds(a: int):
    add(a=a, b=2)


def check(name: str, got: object, want: object) -> None:
    """Say ok or stop."""
    if got != want:
        raise SystemExit(f"FAILED {name}: got {got!r}, want {want!r}")
    print(f"ok {name}", flush=True)


def use_storage() -> str:
    """Objects go there and come back; give the bucket."""
    client = storage.Client()
    bucket = client.create_bucket(f"second-{uuid.uuid4().hex}", location="us-central1")
    content = os.urandom(300_000)
    bucket.blob("in/data").upload_from_string(content)
    check("storage", bucket.blob("in/data").download_as_bytes(), content)
    check("storage list", [b.name for b in bucket.list_blobs()], ["in/data"])
    return bucket.name


def use_endpoint() -> tuple[str, str]:
    """A model is uploaded, deployed and asked; give model and endpoint."""
    model = aiplatform.Model.upload(
        display_name="second", serving_container_image_uri="echo:1"
    )
    check("upload", model.version_id, "1")
    endpoint = aiplatform.Endpoint.create(display_name="second")
    endpoint.deploy(model, machine_type="n1-standard-2")
    check("predict", endpoint.predict(instances=ROWS).predictions, ROWS)
    body = json.dumps({"instances": ROWS}).encode()
    raw = endpoint.raw_predict(body, {"Content-Type": "application/json"})
    check("raw_predict", (raw.status_code, raw.json()), (200, {"predictions": ROWS}))
    return model.resource_name, endpoint.resource_name


def use_pipeline() -> None:
    """A pipeline runs.

    The client asks the resource manager at its fixed address for the number of the
    project, unless the bucket is new and the job names its service account.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/pipeline.yaml"
        compiler.Compiler().compile(adds, path)
        job = aiplatform.PipelineJob(
            display_name="second",
            template_path=path,
            pipeline_root=f"gs://second-root-{uuid.uuid4().hex}/root",
            parameter_values={"a": 40},
            enable_caching=False,
        )
        project = os.environ["GOOGLE_CLOUD_PROJECT"]
        job.run(service_account=f"default@{project}.iam.tategu.internal")
    output = job.task_details
    totals = [
        task.execution.metadata["output:Output"]
        for task in output
        if task.task_name == "add"
    ]
    check("pipeline", totals, [42])


def try_deploy(model: str, endpoint: str) -> None:
    """Deploy, which a viewer may not."""
    try:
        aiplatform.Endpoint(endpoint).deploy(
            aiplatform.Model(model), machine_type="n1-standard-2"
        )
    except exceptions.Forbidden as refusal:
        check("viewer's deploy", refusal.code, 403)
    else:
        raise SystemExit("FAILED viewer's deploy: it was let through")


def main() -> None:
    """Do what was asked for."""
    # With the project given, the client does not ask the resource manager for it.
    aiplatform.init(
        project=os.environ["GOOGLE_CLOUD_PROJECT"],
        api_endpoint=os.environ["TATEGU_ENDPOINT"],
        location="us-central1",
    )
    if sys.argv[1] == "deploy":
        try_deploy(*sys.argv[2:4])
        return
    use_storage()
    model, endpoint = use_endpoint()
    use_pipeline()
    print(f"made {model} {endpoint}")


if __name__ == "__main__":
    main()
