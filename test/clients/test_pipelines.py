"""PipelineJob from compiled kfp: results, failures, cancel, cache."""

import time
import uuid

import pytest
from google.cloud import aiplatform
from kfp import compiler, dsl


@dsl.component(base_image="python:3.11")
def add(a: int, b: int) -> int:
    return a + b


@dsl.component(base_image="python:3.11")
def write(number: int, table: dsl.Output[dsl.Dataset]) -> None:
    with open(table.path, "w") as f:
        f.write(f"number {number}")
    table.metadata["rows"] = number


@dsl.component(base_image="python:3.11")
def read(table: dsl.Input[dsl.Dataset], suffix: str = "!") -> str:
    with open(table.path) as f:
        return f.read() + suffix


@dsl.component(base_image="python:3.11")
def break_down(word: str) -> None:
    print("about to fail", flush=True)
    raise ValueError(f"the word is {word}")


@dsl.component(base_image="python:3.11")
def sleep_long() -> None:
    import time

    time.sleep(600)


@dsl.component(base_image="python:3.11")
def halves(number: int) -> list[int]:
    return [number // 2, number - number // 2]


@dsl.component(base_image="python:3.11")
def say_all(rows: list, tables: dsl.Input[list[dsl.Dataset]]) -> str:
    words = []
    for table in tables:
        with open(table.path) as f:
            words.append(f.read())
    return f"{rows} {words}"


@dsl.component(base_image="python:3.11")
def tell(status: dsl.PipelineTaskFinalStatus) -> str:
    return f"{status.state} {status.pipeline_task_name} {status.error_message[:80]}"


@dsl.pipeline(name="loops")
def loops(numbers: list[int]) -> str:
    with dsl.ParallelFor(numbers, parallelism=2) as number:
        parts = halves(number=number)
        with dsl.ParallelFor(parts.output) as part:
            one = add(a=part, b=1)
            table = write(number=part)
    return say_all(
        rows=dsl.Collected(one.output), tables=dsl.Collected(table.outputs["table"])
    ).output


@dsl.pipeline(name="breaks-in-a-loop")
def breaks_in_a_loop():
    with dsl.ExitHandler(tell()), dsl.ParallelFor(["a", "b"]) as word:
        break_down(word=word)


@dsl.pipeline(name="sum-and-say")
def sum_and_say(a: int, b: int = 2):
    total = add(a=a, b=b)
    table = write(number=total.output)
    with dsl.If(total.output > 100):
        add(a=1, b=1).set_display_name("never")
    read(table=table.outputs["table"])


@dsl.pipeline(name="breaks")
def breaks():
    first = add(a=1, b=1)
    broken = break_down(word="xyzzy").after(first)
    add(a=2, b=2).after(broken)


@dsl.pipeline(name="sleeps")
def sleeps():
    sleep_long()


@pytest.fixture
def job_of(mode, bucket, tmp_path):
    """Make a PipelineJob of a pipeline function."""

    def make(function, **parameters):
        path = str(tmp_path / "pipeline.yaml")
        compiler.Compiler().compile(function, path)
        return aiplatform.PipelineJob(
            display_name=function.name,
            # The client's own ids are the same for two jobs of one second.
            job_id=f"job-{uuid.uuid4().hex}",
            template_path=path,
            pipeline_root=f"gs://{bucket.name}/root",
            parameter_values=parameters,
        )

    return make


def tasks(job):
    return {task.task_name: task for task in job.task_details}


def test_parameters_artifacts_and_condition(job_of, bucket):
    number = -int(uuid.uuid4().int % 10**9)  # nothing of it is in the cache
    job = job_of(sum_and_say, a=number - 2)
    job.run()
    done = tasks(job)
    assert done["add"].execution.metadata["output:Output"] == number
    assert done["read"].execution.metadata["output:Output"] == f"number {number}!"
    assert done["condition-1"].state.name == "NOT_TRIGGERED"
    artifact = done["write"].outputs["table"].artifacts[0]
    assert artifact.uri.startswith(f"gs://{bucket.name}/root/")
    assert artifact.metadata["rows"] == number
    content = bucket.client.bucket(bucket.name).blob(
        artifact.uri.removeprefix(f"gs://{bucket.name}/")
    )
    assert content.download_as_bytes() == f"number {number}".encode()


def test_second_run_comes_from_the_cache(job_of):
    number = int(uuid.uuid4().int % 10**9)
    first = job_of(sum_and_say, a=number, b=-number)
    first.run()
    second = job_of(sum_and_say, a=number, b=-number)
    second.run()
    states = {name: task.state.name for name, task in tasks(second).items()}
    for name in ("add", "write", "read"):
        assert states[name] == "SKIPPED", states
    assert tasks(second)["read"].execution.metadata["output:Output"] == "number 0!"


def test_failure_says_which_task_and_why(job_of):
    job = job_of(breaks)
    with pytest.raises(RuntimeError) as failure:
        job.run()
    text = str(failure.value)
    for word in ("break-down", "exit code 1", "ValueError: the word is xyzzy"):
        assert word in text, text
    done = tasks(job)
    assert done["add"].state.name in {"SUCCEEDED", "SKIPPED"}
    assert done["break-down"].state.name == "FAILED"
    assert done["break-down"].error.message
    assert "add-2" not in done or done["add-2"].state.name == "NOT_TRIGGERED"


def test_cancel(job_of):
    job = job_of(sleeps)
    job.submit()
    wait_for(lambda: state_of(job, "sleep-long") == "RUNNING")
    job.cancel()
    wait_for(lambda: job.state.name == "PIPELINE_STATE_CANCELLED")
    assert state_of(job, "sleep-long") == "CANCELLED"


def test_list_by_display_name(job_of):
    job = job_of(sum_and_say, a=1)
    job.run()
    found = aiplatform.PipelineJob.list(filter='display_name="sum-and-say"')
    assert job.resource_name in [j.resource_name for j in found]
    assert not aiplatform.PipelineJob.list(filter='display_name="nothing"')


def test_broken_pipeline_is_refused_by_name(job_of):
    job = job_of(sum_and_say, a="not a number")
    with pytest.raises(Exception, match="a"):
        job.submit()


def state_of(job, task):
    """The state of a task now."""
    job._sync_gca_resource()
    found = tasks(job).get(task)
    return found.state.name if found else None


def wait_for(holds, seconds=120):
    """Poll until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.2)


def test_loops_nest_and_are_collected(job_of):
    first = int(uuid.uuid4().int % 10**6) * 2
    job = job_of(loops, numbers=[first, 6, 4])
    job.run()
    half = first // 2
    done = tasks(job)
    rows = [[half + 1, half + 1], [4, 4], [3, 3]]
    words = [f"number {n}" for n in (half, half, 3, 3, 2, 2)]
    said = done["say-all"].execution.metadata["output:Output"]
    assert said == f"{rows} {words}"
    names = {task.task_id: task.task_name for task in job.task_details}
    parents = {
        (task.task_name, names.get(task.parent_task_id)) for task in job.task_details
    }
    for name in ("for-loop-1-0", "for-loop-1-2"):
        assert (name, "for-loop-1") in parents
        assert ("halves", name) in parents
        assert ("for-loop-2", name) in parents
    assert sum(task.task_name == "write" for task in job.task_details) == 6


def test_exit_handler_hears_of_a_failed_loop(job_of):
    job = job_of(breaks_in_a_loop)
    with pytest.raises(RuntimeError) as failure:
        job.run()
    assert "ValueError: the word is" in str(failure.value)
    told = tasks(job)["tell"].execution.metadata["output:Output"]
    assert told.startswith("FAILED exit-handler-1 ")
    assert "break-down" in told
