"""Tasks that ask for the one GPU run one at a time, CPU tasks pass them."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform
from kfp import compiler, dsl
from server import FOREIGN, Server, echo_config

GPUS = 3
CPUS = 2


@dsl.component(base_image="python:3.11")
def hold(folder: str, name: str, cpus: int) -> str:
    """Note begin and end; run until the CPU tasks are done and the test says go."""
    import os
    import time

    def note(what: str) -> None:
        with open(folder + "/gpu", "a") as f:
            f.write(f"{what} {name}\n")

    note("begin")
    wanted = [f"{folder}/cpu{i}" for i in range(cpus)] + [folder + "/go"]
    while not all(map(os.path.exists, wanted)):
        time.sleep(0.02)
    note("end")
    return os.environ["CUDA_VISIBLE_DEVICES"]


@dsl.component(base_image="python:3.11")
def passes(folder: str, name: str) -> str:
    import os

    open(f"{folder}/{name}", "w").close()
    return "[" + os.environ["CUDA_VISIBLE_DEVICES"] + "]"


@dsl.pipeline(name="one-gpu")
def one_gpu(folder: str):
    for i in range(GPUS):
        task = hold(folder=folder, name=f"gpu{i}", cpus=CPUS).set_caching_options(False)
        task.set_display_name(f"gpu{i}")
        task.set_accelerator_type("NVIDIA_L4").set_accelerator_limit(1)
    for i in range(CPUS):
        task = passes(folder=folder, name=f"cpu{i}").set_caching_options(False)
        task.set_display_name(f"cpu{i}")


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server of its own with as many GPUs as the test says."""
    config = echo_config("echo*") + f"resources: {{gpus: {request.param}}}\n"
    # uv and the package index are found by the variables that pytest was started with.
    entries = Path("/proc/self/environ").read_text().split("\0")
    kept = [e for e in entries if "=" in e and not FOREIGN.match(e.partition("=")[0])]
    with Server(tmp_path, config, prefix=("/usr/bin/env", *kept)) as server:
        aiplatform.init(
            project="p",
            location="us-central1",
            api_endpoint=f"http://{server.address}",
            api_transport="rest",
            credentials=AnonymousCredentials(),
        )
        server.make_bucket("p", "runs")
        yield server
        aiplatform.initializer.global_pool.shutdown(wait=True)
        aiplatform.initializer.global_config.__init__()


def submit(folder: Path) -> aiplatform.PipelineJob:
    folder.mkdir()
    template = folder / "pipeline.yaml"
    compiler.Compiler().compile(one_gpu, str(template))
    job = aiplatform.PipelineJob(
        display_name="one gpu",
        template_path=str(template),
        job_id=f"one-gpu-{uuid.uuid4().hex}",
        pipeline_root="gs://runs/root",
        parameter_values={"folder": str(folder)},
    )
    job.submit()
    return job


def waiting(job: aiplatform.PipelineJob) -> dict[str, str]:
    """What each task that is PENDING says last."""
    details = aiplatform.PipelineJob.get(job.resource_name).task_details
    return {
        d.task_name: d.pipeline_task_status[-1].error.message
        for d in details
        if d.state.name == "PENDING" and d.pipeline_task_status[-1].error.message
    }


@pytest.mark.parametrize("machine", [0], indirect=True)
def test_refused_without(machine: Server, tmp_path: Path) -> None:
    with pytest.raises(
        exceptions.BadRequest,  # FAILED_PRECONDITION over REST
        match=r'task "hold.*1 GPU is asked for and this machine has none',
    ):
        submit(tmp_path / "shared")


@pytest.mark.parametrize("machine", [1], indirect=True)
def test_one_at_a_time(machine: Server, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    job = submit(folder)
    waits = {}
    deadline = time.monotonic() + 30
    while len(waits) < GPUS - 1 and time.monotonic() < deadline:
        time.sleep(0.1)
        waits = waiting(job)
    assert len(waits) == GPUS - 1, job.gca_resource
    for place, message in enumerate(sorted(waits.values()), 1):
        assert f"queued, number {place} of {GPUS - 1}: waits for 1 GPU" in message
        assert "(1 of 1 in use by task-" in message
    (folder / "go").touch()
    job.wait()
    lines = (folder / "gpu").read_text().split("\n")[:-1]
    begins, ends = lines[::2], lines[1::2]
    assert len(lines) == 2 * GPUS
    for begin, end in zip(begins, ends, strict=True):
        assert begin.startswith("begin") and end == begin.replace("begin", "end")
