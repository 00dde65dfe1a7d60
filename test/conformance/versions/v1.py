"""Pipelines of kfp 1.8 in its v2 mode (schema 2.0.0); run as `python v1.py FOLDER`."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import kfp
from kfp import components
from kfp.v2 import compiler, dsl
from kfp.v2.dsl import Artifact, Dataset, Input, Metrics, Model, Output, component

IMAGE = "python:3.11"
# This compiler writes a constant bool as the whole number 1 or 0, into an input that
# it declares as a string, and that is what its programs get. One that comes from a
# parameter or from another task is "True" or "true", which they read as a bool.


@component(base_image=IMAGE)
def flip(side: str) -> str:
    return side


@component(base_image=IMAGE)
def numbers(n: int) -> list:
    return list(range(n))


@component(base_image=IMAGE)
def square(x: int) -> int:
    return x * x


@component(base_image=IMAGE)
def join(a: str, b: float, c: bool, d: list, e: dict) -> str:
    return f"{a} {b} {c} {d} {e}"


@component(base_image=IMAGE)
def truth(x: bool) -> bool:
    return not x


@component(base_image=IMAGE)
def split(n: int) -> NamedTuple("Halves", [("low", int), ("high", float)]):
    from collections import namedtuple

    return namedtuple("Halves", ["low", "high"])(n // 2, n / 2)


@component(base_image=IMAGE, packages_to_install=["six==1.16.0"])
def make(rows: int, table: Output[Dataset], scores: Output[Metrics]):
    import six

    with open(table.path, "w") as f:
        f.write("\n".join(map(str, range(rows))) + six.text_type("\n"))
    table.metadata["rows"] = rows
    scores.log_metric("accuracy", 0.5)


@component(base_image=IMAGE)
def train(table: Input[Dataset], model: Output[Model]) -> int:
    with open(table.path) as f:
        n = len(f.readlines())
    with open(model.path, "w") as f:
        f.write(f"{n} of {table.metadata['rows']}")
    return n


@component(base_image=IMAGE)
def read(model: Input[Artifact]) -> str:
    with open(model.path) as f:
        return f.read() + " " + model.uri.split(":")[0]


@component(base_image=IMAGE)
def fail(text: str):
    raise ValueError(text)


shout = components.load_component_from_text("""
name: Shout
inputs: [{name: text, type: String}, {name: table, type: Dataset}]
outputs: [{name: loud, type: String}, {name: copy, type: Dataset}]
implementation:
  container:
    image: alpine
    command: [sh, -c, 'mkdir -p "$(dirname "$2")" "$(dirname "$3")"; echo "$0!" > "$2"; cp "$1" "$3"']
    args: [{inputValue: text}, {inputPath: table}, {outputPath: loud}, {outputPath: copy}]
""")


@dsl.pipeline(name="types")
def types(n: int = 5, text: str = "it is", flag: bool = True, off: bool = False):
    join(a="given", b=2, c=flag, d=[], e={})
    join(a="given", b=2, c=off, d=[], e={})
    join(a="made", b=2, c=truth(flag).output, d=[], e={})
    halves = split(n)
    join(
        a=text,
        b=halves.outputs["high"],
        c=True,
        d=numbers(halves.outputs["low"]).output,
        e={"k": [1, 2]},
    )


@dsl.pipeline(name="artifacts")
def artifacts():
    made = make(rows=3)
    trained = train(made.outputs["table"])
    read(trained.outputs["model"])
    shout(text="loud", table=made.outputs["table"])


@dsl.pipeline(name="conditions")
def conditions(limit: int = 3):
    side = flip(side="heads")
    with dsl.Condition(side.output == "heads", name="heads"):
        square(x=limit).set_display_name("yes")
        with dsl.Condition(limit > 2, name="large"):
            join(a="nested", b=1.0, c=False, d=[], e={})
    with dsl.Condition(side.output == "tails"):
        split(1)


@dsl.pipeline(name="loops")
def loops():
    with dsl.ParallelFor([{"x": "a", "y": "b"}, {"x": "c", "y": "d"}]) as item:
        flip(side=item.y)
        flip(side=item.x)
    some = numbers(3)
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
    read(given.output)


@component(base_image=IMAGE)
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
    last = flip(side="at the end")
    with dsl.ExitHandler(last, name="watched"):
        fail("on purpose")


CASES = {
    "types": (
        types,
        "SUCCEEDED",
        {
            "join": [
                "it is 2.5 1 [0, 1] {'k': [1, 2]}",
                "given 2.0 True [] {}",
                "given 2.0 False [] {}",
                "made 2.0 False [] {}",
            ],
        },
    ),
    "artifacts": (
        artifacts,
        "SUCCEEDED",
        {"train": [3], "read": ["3 of 3 gs"], "shout": None},
    ),
    "conditions": (
        conditions,
        "SUCCEEDED",
        {"square": [9], "join": ["nested 1.0 0 [] {}"], "split": []},
    ),
    "loops": (
        loops,
        "SUCCEEDED",
        {
            "flip": ["a", "b", "c", "d", *(["p", "q"] * 3)],
            "join": [f"at {x} 0.0 1 [] {{}}" for x in range(3)],
        },
    ),
    "imports": (imports, "SUCCEEDED", {"read": ["from outside gs"]}),
    "retries": (retries, "SUCCEEDED", {"second": ["left by the first"]}),
    "exits": (exits, "FAILED", {"flip": ["at the end"], "fail": []}),
}


def main(folder):
    expected = {}
    for name, (pipeline, state, outputs) in CASES.items():
        path = folder / f"{name}.json"
        compiler.Compiler().compile(pipeline, str(path))
        expected[path.name] = {"state": state, "outputs": outputs}
    (folder / "expected.json").write_text(json.dumps(expected))


main(Path(sys.argv[1]))
