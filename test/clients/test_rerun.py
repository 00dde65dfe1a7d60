"""PipelineJob.rerun() of the preview: a fixed run goes on, nothing runs twice."""

import uuid

import pytest
from google.cloud import aiplatform
from google.cloud.aiplatform.preview.pipelinejob.pipeline_jobs import (
    _PipelineJob as PreviewPipelineJob,
)
from kfp import compiler, dsl


@dsl.component(base_image="python:3.11")
def number(n: int) -> int:
    return n


@dsl.component(base_image="python:3.11")
def half(n: int) -> int:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2


@dsl.component(base_image="python:3.11")
def say(n: int) -> str:
    return f"half is {n}"


@dsl.pipeline(name="halves-a-number")
def halves_a_number(n: int):
    given = number(n=n)
    halved = half(n=given.output)
    say(n=halved.output)


def compiled(path, old="", new=""):
    compiler.Compiler().compile(halves_a_number, str(path))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if old else text)
    return str(path)


@pytest.mark.parametrize("how", ["fixed source", "other parameter"])
def test_rerun_goes_on(mode, bucket, tmp_path, how):
    odd = int(uuid.uuid4().int % 10**9) * 2 + 1  # nothing of it is in the cache
    root = f"gs://{bucket.name}/root"
    first = aiplatform.PipelineJob(
        display_name="first",
        job_id=f"job-{uuid.uuid4().hex}",
        template_path=compiled(tmp_path / "first.yaml"),
        pipeline_root=root,
        parameter_values={"n": odd},
    )
    with pytest.raises(RuntimeError, match="is odd"):
        first.run()
    failed = {t.task_name: t for t in first.task_details}["half"]

    configs = []
    change = ("if n % 2:", "if False:") if how == "fixed source" else ("", "")
    second = PreviewPipelineJob(
        display_name="second",
        template_path=compiled(tmp_path / "second.yaml", *change),
        pipeline_root=root,
        parameter_values={"n": odd},
    )
    if how == "other parameter":
        from google.cloud import aiplatform_v1beta1 as v1beta1

        config = v1beta1.PipelineTaskRerunConfig(task_id=failed.task_id)
        config.inputs.parameter_values["n"] = odd + 1
        configs = [config]
    second.rerun(
        original_pipelinejob_name=first.resource_name,
        pipeline_task_rerun_configs=configs,
        job_id=f"job-{uuid.uuid4().hex}",
    )
    second.wait()
    done = {t.task_name: t for t in second.task_details}
    want = odd // 2 + (how == "other parameter")
    assert done["say"].execution.metadata["output:Output"] == f"half is {want}"
    ran = {name for name, t in done.items() if t.executor_detail.container_detail.main_job}
    assert ran == {"half", "say"}, "upstream tasks run again"
    assert done["number"].state.name == "SKIPPED"
