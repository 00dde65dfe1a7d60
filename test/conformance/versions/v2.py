"""Pipelines of kfp 2, each feature that the version has; run as `python v2.py FOLDER`."""

import json
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple

import kfp
from kfp import compiler, dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

IMAGE = "python:3.11"


@dsl.component(base_image=IMAGE)
def flip(side: str) -> str:
    return side


@dsl.component(base_image=IMAGE)
def numbers(n: int) -> List[int]:
    return list(range(n))


@dsl.component(base_image=IMAGE)
def square(x: int) -> int:
    return x * x


@dsl.component(base_image=IMAGE)
def total(xs: List[int]) -> int:
    return sum(xs)


@dsl.component(base_image=IMAGE)
def join(a: str, b: float, c: bool, d: list, e: Dict[str, list]) -> str:
    return f"{a} {b} {c} {d} {e}"


@dsl.component(base_image=IMAGE)
def split(n: int) -> NamedTuple("Halves", [("low", int), ("high", float)]):
    from collections import namedtuple

    return namedtuple("Halves", ["low", "high"])(n // 2, n / 2)


@dsl.component(base_image=IMAGE, packages_to_install=["six==1.16.0"])
def make(rows: int, table: Output[Dataset], scores: Output[Metrics]):
    import six

    with open(table.path, "w") as f:
        f.write("\n".join(map(str, range(rows))) + six.text_type("\n"))
    table.metadata["rows"] = rows
    scores.log_metric("accuracy", 0.5)


@dsl.component(base_image=IMAGE)
def train(table: Input[Dataset], model: Output[Model]) -> int:
    with open(table.path) as f:
        n = len(f.readlines())
    with open(model.path, "w") as f:
        f.write(f"{n} of {table.metadata['rows']}")
    return n


@dsl.component(base_image=IMAGE)
def read(model: Input[Artifact]) -> str:
    with open(model.path) as f:
        return f.read() + " " + model.uri.split(":")[0]


@dsl.component(base_image=IMAGE)
def fail(text: str) -> str:
    raise ValueError(text)


@dsl.component(base_image=IMAGE)
def told(status: dsl.PipelineTaskFinalStatus) -> str:
    return f"{status.state} {'on purpose' in (status.error_message or '')}"


@dsl.container_component
def shout(text: str, table: Input[Dataset], loud: dsl.OutputPath(str), copy: Output[Dataset]):
    return dsl.ContainerSpec(
        image="alpine",
        command=[
            "sh",
            "-c",
            'mkdir -p "$(dirname "$2")" "$(dirname "$3")"; echo "$0!" > "$2"; cp "$1" "$3"',
        ],
        args=[text, table.path, loud, copy.path],
    )


@dsl.pipeline(name="types")
def types(n: int = 5, text: str = "it is"):
    halves = split(n=n)
    join(
        a=text,
        b=halves.outputs["high"],
        c=True,
        d=numbers(n=halves.outputs["low"]).output,
        e={"k": [1, 2]},
    )


@dsl.pipeline(name="artifacts")
def artifacts():
    made = make(rows=3)
    trained = train(table=made.outputs["table"])
    read(model=trained.outputs["model"])
    shout(text="loud", table=made.outputs["table"])


@dsl.pipeline(name="conditions")
def conditions(limit: int = 3):
    side = flip(side="heads")
    with dsl.Condition(side.output == "heads", name="heads"):
        square(x=limit)
        with dsl.Condition(limit > 2, name="large"):
            join(a="nested", b=1.0, c=False, d=[], e={})
    with dsl.Condition(side.output == "tails"):
        split(n=1)


@dsl.pipeline(name="loops")
def loops():
    with dsl.ParallelFor([{"x": "a", "y": "b"}, {"x": "c", "y": "d"}]) as item:
        flip(side=item.y)
        flip(side=item.x)
    some = numbers(n=3)
    with dsl.ParallelFor(some.output, parallelism=2) as x:
        join(a=f"at {x}", b=0.0, c=True, d=[], e={})
        with dsl.ParallelFor(["p", "q"]) as y:
            flip(side=y)


@dsl.pipeline(name="imports")
def imports():
    given = dsl.importer(
        artifact_uri="gs://versions/model.txt",
        artifact_class=Model,
        reimport=False,
        metadata={"from": "outside"},
    )
    read(model=given.output)


@dsl.component(base_image=IMAGE)
def second(marker: str) -> str:
    """Fail, leave a mark, and succeed at the next attempt, which finds it."""
    import os

    if os.path.exists(marker):
        with open(marker) as f:
            return f.read()
    os.makedirs(os.path.dirname(marker), exist_ok=True)
    with open(marker, "w") as f:
        f.write("left by the first")
    raise RuntimeError("the first attempt")


@dsl.pipeline(name="retries")
def retries():
    second(marker=f"/gcs/versions/marks/{kfp.__version__}").set_retry(
        num_retries=1, backoff_duration="1s", backoff_factor=2.0
    )


@dsl.pipeline(name="exits")
def exits():
    last = told()
    with dsl.ExitHandler(last, name="watched"):
        fail(text="on purpose")


@dsl.pipeline(name="inner")
def inner(x: int) -> int:
    return square(x=square(x=x).output).output


@dsl.pipeline(name="nested")
def nested():
    below = inner(x=2)
    square(x=below.output)


CASES = {
    "types": (types, "SUCCEEDED", {"join": ["it is 2.5 True [0, 1] {'k': [1, 2]}"]}),
    "artifacts": (
        artifacts,
        "SUCCEEDED",
        {"train": [3], "read": ["3 of 3 gs"], "shout": None},
    ),
    "conditions": (
        conditions,
        "SUCCEEDED",
        {"square": [9], "join": ["nested 1.0 False [] {}"], "split": []},
    ),
    "loops": (
        loops,
        "SUCCEEDED",
        {
            "flip": ["a", "b", "c", "d", *(["p", "q"] * 3)],
            "join": [f"at {x} 0.0 True [] {{}}" for x in range(3)],
        },
    ),
    "imports": (imports, "SUCCEEDED", {"read": ["from outside gs"]}),
    "retries": (retries, "SUCCEEDED", {"second": ["left by the first"]}),
    "exits": (exits, "FAILED", {"told": ["FAILED True"], "fail": []}),
    "nested": (nested, "SUCCEEDED", {"square": [4, 16, 256]}),
}

if hasattr(dsl, "Collected"):

    @dsl.pipeline(name="collected")
    def collected():
        with dsl.ParallelFor([1, 2, 3]) as x:
            squared = square(x=x)
        total(xs=dsl.Collected(squared.output))

    CASES["collected"] = (collected, "SUCCEEDED", {"total": [14]})

if hasattr(dsl, "OneOf"):

    @dsl.component(base_image=IMAGE)
    def chosen(x: int) -> int:
        return x

    @dsl.pipeline(name="branches")
    def branches(n: int = 2):
        side = flip(side="tails")
        with dsl.If(side.output == "heads"):
            one = square(x=1)
        with dsl.Elif(n == 2):
            two = square(x=n)
        with dsl.Else():
            three = square(x=3)
        chosen(x=dsl.OneOf(one.output, two.output, three.output))

    CASES["branches"] = (branches, "SUCCEEDED", {"square": [4], "chosen": [4]})

if hasattr(dsl.PipelineTask, "ignore_upstream_failure"):

    @dsl.component(base_image=IMAGE)
    def anyway(text: str = "a default") -> str:
        return text

    @dsl.pipeline(name="ignoring")
    def ignoring():
        anyway(text=fail(text="on purpose").output).ignore_upstream_failure()

    CASES["ignoring"] = (ignoring, "FAILED", {"anyway": ["a default"], "fail": []})


def main(folder):
    expected = {}
    for name, (pipeline, state, outputs) in CASES.items():
        path = folder / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        expected[path.name] = {"state": state, "outputs": outputs}
    (folder / "expected.json").write_text(json.dumps(expected))


main(Path(sys.argv[1]))
