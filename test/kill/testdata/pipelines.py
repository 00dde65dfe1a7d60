"""The pipelines of the kill loop; run it to compile them again.

    python test/kill/testdata/pipelines.py

The image kill/task stands for task.sh. Each takes the name of its run, which
makes every run new to the cache, and hands the sum of its tasks on, so that a
wrong hand-over shows in the last task's output.
"""

from pathlib import Path

from kfp import compiler, dsl


@dsl.container_component
def step(run: str, seconds: float, number: int, total: dsl.OutputPath(int)):
    """Wait, add one, and say so in the ledger."""
    return dsl.ContainerSpec(
        image="kill/task", args=["step", run, seconds, number, total]
    )


@dsl.container_component
def save(run: str, seconds: float, number: int, table: dsl.Output[dsl.Dataset]):
    """Write an artifact."""
    return dsl.ContainerSpec(
        image="kill/task", args=["save", run, seconds, number, table.path]
    )


@dsl.container_component
def load(
    run: str,
    seconds: float,
    table: dsl.Input[dsl.Dataset],
    total: dsl.OutputPath(int),
):
    """Add one to what an artifact says."""
    return dsl.ContainerSpec(
        image="kill/task", args=["load", run, seconds, table.path, total]
    )


@dsl.container_component
def flaky(run: str, seconds: float, number: int, total: dsl.OutputPath(int)):
    """Fail the first attempt."""
    return dsl.ContainerSpec(
        image="kill/task", args=["flaky", run, seconds, number, total]
    )


@dsl.component(base_image="python:3.11")
def python_step(ledger: str, run: str, seconds: float, number: int) -> int:
    """The same step, as a Python function."""
    import os
    import time

    workload = os.path.basename(os.environ["TATEGU_WORKLOAD_DIR"])
    task, attempt = workload.removeprefix("task-").rsplit("-", 1)

    def say(word):
        with open(ledger, "a") as f:
            f.write(f"{word},{run},{task},{attempt}\n")

    say("begin")
    time.sleep(seconds)
    say("commit")
    return number + 1


@dsl.pipeline(name="chain")
def chain(run: str, slow: float, quick: float):
    """Five tasks in a row, over parameters and an artifact."""
    a = step(run=run, seconds=quick, number=0)
    b = step(run=run, seconds=slow, number=a.outputs["total"])
    c = save(run=run, seconds=quick, number=b.outputs["total"])
    d = load(run=run, seconds=slow, table=c.outputs["table"])
    step(run=run, seconds=quick, number=d.outputs["total"]).set_display_name("last")


@dsl.pipeline(name="fan")
def fan(run: str, slow: float, quick: float):
    """Tasks side by side, a condition, a nested graph and an exit task."""
    end = step(run=run, seconds=0.0, number=100).set_display_name("exit")
    with dsl.ExitHandler(end):
        a = step(run=run, seconds=quick, number=0)
        b = step(run=run, seconds=slow, number=a.outputs["total"])
        c = step(run=run, seconds=quick, number=a.outputs["total"])
        with dsl.If(b.outputs["total"] == 2):
            d = step(run=run, seconds=slow, number=c.outputs["total"])
            step(run=run, seconds=quick, number=d.outputs["total"])
        with dsl.If(b.outputs["total"] == 3):
            step(run=run, seconds=0.0, number=-100)


@dsl.pipeline(name="retry")
def retry(run: str, slow: float, quick: float):
    """A task that succeeds at its second attempt, between two others."""
    a = step(run=run, seconds=quick, number=0)
    b = flaky(run=run, seconds=quick, number=a.outputs["total"]).set_retry(
        3, backoff_duration="1s", backoff_factor=1
    )
    step(run=run, seconds=slow, number=b.outputs["total"])


@dsl.pipeline(name="python")
def python(ledger: str, run: str, slow: float, quick: float):
    """Python functions between container tasks."""
    a = step(run=run, seconds=quick, number=0)
    b = python_step(ledger=ledger, run=run, seconds=slow, number=a.outputs["total"])
    step(run=run, seconds=quick, number=b.output)


if __name__ == "__main__":
    for pipeline in (chain, fan, retry, python):
        path = Path(__file__).with_name(f"{pipeline.name}.yaml")
        compiler.Compiler().compile(pipeline, str(path))
