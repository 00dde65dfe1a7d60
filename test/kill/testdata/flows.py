"""The pipelines whose programs are killed; run it to compile them again.

    python test/kill/testdata/flows.py

The image kill/flow stands for flow.sh. Every task says in the ledger who it is and
gives that as its output, so that each value that is handed on names the attempt
that made it.
"""

from pathlib import Path
from typing import List

from kfp import compiler, dsl


@dsl.container_component
def step(
    run: str,
    name: str,
    seconds: float,
    failures: int,
    after: str,
    token: dsl.OutputPath(str),
    made: dsl.Output[dsl.Artifact],
):
    """Wait, and tell who it was."""
    return dsl.ContainerSpec(
        image="kill/flow",
        args=[run, name, seconds, failures, after, token, made.path],
    )


@dsl.component(base_image="python:3.11")
def item(
    run: str, ledger: str, seconds: float, i: int, j: int, made: dsl.Output[dsl.Artifact]
) -> str:
    """An iteration of two loops."""
    import os
    import time

    me = os.path.basename(os.environ["TATEGU_WORKLOAD_DIR"])

    def say(step):
        with open(ledger, "a") as f:
            f.write(f"{time.time():.9f},{step},{run},item,{me}\n")

    print("attempt", me, "of item", flush=True)
    say("begin")
    with open(made.path, "w") as f:
        f.write("half of " + me)
    time.sleep(seconds)
    with open(made.path, "w") as f:
        f.write(me)
    say("commit")
    return f"{i}/{j}/{me}"


@dsl.component(base_image="python:3.11")
def gather(
    run: str, ledger: str, tokens: List[List[str]], made: dsl.Input[List[dsl.Artifact]]
) -> str:
    """Hand on what the iterations gave, in the order in which it came."""
    import json
    import os
    import time

    me = os.path.basename(os.environ["TATEGU_WORKLOAD_DIR"])

    def say(step):
        with open(ledger, "a") as f:
            f.write(f"{time.time():.9f},{step},{run},gather,{me}\n")

    print("attempt", me, "of gather", flush=True)
    say("begin")
    found = []
    for a in made:
        with open(a.path) as f:
            found.append(f.read())
    say("commit")
    return json.dumps({"me": me, "tokens": tokens, "made": found})


@dsl.component(base_image="python:3.11")
def finish(run: str, ledger: str, status: dsl.PipelineTaskFinalStatus) -> str:
    """Tell how the rest ended."""
    import json
    import os
    import time

    me = os.path.basename(os.environ["TATEGU_WORKLOAD_DIR"])

    def say(step):
        with open(ledger, "a") as f:
            f.write(f"{time.time():.9f},{step},{run},finish,{me}\n")

    print("attempt", me, "of finish", flush=True)
    say("begin")
    time.sleep(0.1)
    say("commit")
    return json.dumps({"me": me, "state": status.state, "message": status.error_message})


@dsl.pipeline(name="part")
def part(run: str, slow: float, quick: float) -> str:
    """Two tasks, of which the second fails once: the whole is tried again."""
    a = step(run=run, name="first", seconds=quick, failures=0, after="")
    b = step(
        run=run, name="second", seconds=slow, failures=1, after=a.outputs["token"]
    )
    return b.outputs["token"]


def patient(task, times):
    """Try it again at once, so often."""
    return task.set_retry(times, backoff_duration="0s")


@dsl.pipeline(name="flow-weave")
def weave(run: str, ledger: str, slow: float, quick: float):
    """Loops in loops, a graph that is tried again, a condition, an exit task."""
    end = patient(finish(run=run, ledger=ledger), 5)
    with dsl.ExitHandler(end):
        a = patient(
            step(run=run, name="start", seconds=quick, failures=1, after=""), 6
        )
        with dsl.ParallelFor([2, 0, 1], parallelism=2) as i:
            with dsl.ParallelFor([20, 10]) as j:
                t = patient(
                    item(run=run, ledger=ledger, seconds=slow, i=i, j=j), 5
                ).after(a)
            with dsl.If(i == 1):
                patient(
                    step(
                        run=run,
                        name="only",
                        seconds=quick,
                        failures=0,
                        after=a.outputs["token"],
                    ),
                    5,
                )
        patient(
            gather(
                run=run,
                ledger=ledger,
                tokens=dsl.Collected(t.outputs["Output"]),
                made=dsl.Collected(t.outputs["made"]),
            ),
            5,
        )
        b = patient(part(run=run, slow=slow, quick=quick), 5).after(a)
        step(
            run=run, name="last", seconds=quick, failures=0, after=b.output
        ).set_retry(5, backoff_duration="1s", backoff_factor=1)


@dsl.pipeline(name="flow-brittle")
def brittle(run: str, ledger: str, slow: float, quick: float):
    """Few attempts: a killed task is the end of it, and the exit task says so."""
    end = patient(finish(run=run, ledger=ledger), 5)
    with dsl.ExitHandler(end):
        a = step(run=run, name="start", seconds=quick, failures=0, after="")
        b = patient(
            step(
                run=run,
                name="weak",
                seconds=quick,
                failures=2,
                after=a.outputs["token"],
            ),
            1,
        )
        step(
            run=run, name="last", seconds=slow, failures=0, after=b.outputs["token"]
        )
        step(
            run=run, name="beside", seconds=slow, failures=0, after=a.outputs["token"]
        )


@dsl.pipeline(name="flow-tick")
def tick(slow: float):
    """What schedules start."""
    run = dsl.PIPELINE_JOB_NAME_PLACEHOLDER
    a = patient(step(run=run, name="tick", seconds=slow, failures=0, after=""), 9)
    patient(
        step(
            run=run, name="tock", seconds=0.0, failures=0, after=a.outputs["token"]
        ),
        9,
    )


if __name__ == "__main__":
    for pipeline in (weave, brittle, tick):
        path = Path(__file__).with_name(f"{pipeline.name}.yaml")
        compiler.Compiler().compile(pipeline, str(path))
