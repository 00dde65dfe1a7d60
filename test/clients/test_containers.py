"""Images that are pushed to the server run as model server, custom job and step."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform
from google.oauth2.credentials import Credentials
from kfp import compiler, dsl

from conftest import LOCATION, PROJECT
from test_jobs import custom_job

ROOT = Path(__file__).resolve().parent.parent.parent
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def descriptor(type_, content):
    return {"mediaType": type_, "digest": digest(content), "size": len(content)}


def push(server, name, files, config):
    """Push an image of one layer, by the calls of the registry's specification."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(method, path, body, type_):
        url = urllib.parse.urljoin(f"http://{server.address}", path)
        request = urllib.request.Request(url, data=body, method=method)
        request.add_header("Content-Type", type_)
        with opener.open(request, timeout=60) as answer:
            return answer.headers.get("Location", "")

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for inside, path in files.items():
            tar.add(path, inside)
    layer = buffer.getvalue()
    settings = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
    }
    written = json.dumps(settings).encode()
    for blob in (layer, written):
        to = call("POST", f"/v2/{name}/blobs/uploads/", b"", "text/plain")
        to += ("&" if "?" in to else "?") + "digest=" + digest(blob)
        call("PUT", to, blob, "application/octet-stream")
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, written),
        "layers": [descriptor(LAYER, layer)],
    }
    body = json.dumps(manifest).encode()
    call("PUT", f"/v2/{name}/manifests/v1", body, MANIFEST)
    return f"{server.address}/{name}:v1"


@pytest.fixture(scope="module")
def image(server, tmp_path_factory):
    """An image from scratch: one static program, built here."""
    # Clients have an environment of their own; tools are found by pytest's.
    started = dict(
        entry.partition("=")[::2]
        for entry in Path("/proc/self/environ").read_text().split("\0")
        if "=" in entry
    )
    go = shutil.which("go", path=started.get("PATH"))
    if go is None or os.uname().machine != "x86_64":
        pytest.skip("the image is built by go, for amd64")
    program = tmp_path_factory.mktemp("image") / "server"
    subprocess.run(
        [go, "build", "-trimpath", "-o", str(program), "./test/containerserver"],
        cwd=ROOT,
        env={**started, "CGO_ENABLED": "0", "GOPROXY": "off"},
        check=True,
    )
    return push(server, "team/app", {"server": program}, {"Entrypoint": ["/server"]})


def test_model_server_from_scratch(mode, image):
    model = aiplatform.Model.upload(
        display_name="scratch",
        serving_container_image_uri=image,
        serving_container_predict_route="/predict",
        serving_container_health_route="/health",
    )
    endpoint = model.deploy(machine_type="n1-standard-2")
    assert endpoint.predict([[1], [2], [3]]).predictions == [3]
    raw = endpoint.raw_predict(
        body=b"x" * 2_000_000, headers={"Content-Type": "application/octet-stream"}
    )
    assert raw.text == "2000000"
    endpoint.delete(force=True)
    model.delete()


def test_custom_job_from_scratch(bucket, image):
    job = custom_job([], [f"/gcs/{bucket.name}/out.txt", "written"], image=image)
    job.run()
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    assert bucket.blob("out.txt").download_as_bytes() == b"written"


@pytest.fixture
def foreigner(server, mode):
    """A user of this project, and the image of another one that is kept here."""
    for project in ("theirs", PROJECT):
        token = server.command(
            *("token", "create", "--role", "user", "--project", project),
            *("--email", f"user@{project}.example.com"),
        )
    place = {"project": PROJECT, "location": LOCATION}
    return {**place, "credentials": Credentials(token=token.strip())}, push(
        server, "theirs/secret", {"server": ROOT / "README.md"}, {"Cmd": ["/server"]}
    )


def test_image_of_another_project(mode, bucket, foreigner, tmp_path):
    me, image = foreigner
    staging = {"staging_bucket": f"gs://{bucket.name}"}
    with pytest.raises(exceptions.Forbidden, match="theirs/secret"):
        custom_job(["/server"], image=image, **me, **staging).submit()
    model = aiplatform.Model.upload(
        display_name="theirs", serving_container_image_uri=image, **me
    )
    endpoint = aiplatform.Endpoint.create(display_name="mine", **me)
    with pytest.raises(exceptions.Forbidden, match="theirs/secret"):
        model.deploy(endpoint=endpoint, machine_type="n1-standard-2")
    endpoint.delete()
    model.delete()

    @dsl.container_component
    def step():
        return dsl.ContainerSpec(image=image, args=["x"])

    @dsl.pipeline(name="theirs")
    def pipeline():
        step()

    package = str(tmp_path / "pipeline.yaml")
    compiler.Compiler().compile(pipeline, package)
    job = aiplatform.PipelineJob(
        display_name="theirs",
        template_path=package,
        pipeline_root=f"gs://{bucket.name}/root",
        **me,
    )
    with pytest.raises(exceptions.Forbidden, match="theirs/secret"):
        job.submit()


def test_missing_program_names_the_image(mode, image):
    job = custom_job(["/no/such/program"], image=image)
    with pytest.raises(RuntimeError):
        job.run()
    assert "/no/such/program" in job.error.message
    assert image in job.error.message


def test_kfp_container_component(bucket, image, tmp_path):
    @dsl.container_component
    def step(text: str, out: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image=image, args=[out, text])

    @dsl.pipeline(name="scratch")
    def pipeline(text: str) -> str:
        return step(text=text).outputs["out"]

    package = str(tmp_path / "pipeline.yaml")
    compiler.Compiler().compile(pipeline, package)
    job = aiplatform.PipelineJob(
        display_name="scratch",
        template_path=package,
        pipeline_root=f"gs://{bucket.name}/root",
        parameter_values={"text": "from the step"},
        enable_caching=False,
    )
    job.run()
    assert job.state.name == "PIPELINE_STATE_SUCCEEDED"
    outputs = [
        task.execution.metadata["output:out"]
        for task in job.task_details
        if task.task_name == "step"
    ]
    assert outputs == ["from the step"]
