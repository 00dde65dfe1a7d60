"""The pipelines that are measured, compiled by kfp from what a user would write."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl

MARK = 1000  # what the edited component adds, in its source


@dsl.component
def step(x: int) -> int:
    """Work that takes no time: what is left is the platform's."""
    return x + 1


@dsl.component(packages_to_install=["pandas==3.1.1"])
def frame(x: int) -> int:
    """Import what many components do."""
    import pandas

    return int(pandas.DataFrame({"x": [x, 1]})["x"].sum())


@dsl.component
def rest(seconds: float) -> float:
    """Work that takes a known time."""
    import time

    time.sleep(seconds)
    return seconds


@dsl.container_component
def shell(x: int, out: dsl.OutputPath(int)):  # type: ignore[valid-type]
    """Do the same as step, in a shell."""
    script = 'mkdir -p "${1%/*}" && echo "$(($0 + 1))" >"$1"'
    return dsl.ContainerSpec(image="alpine", command=["sh", "-c", script], args=[x, out])


def chain(component: Any, tasks: int, output: str) -> Any:
    """Tasks in a row; each takes what the one before gave."""

    def flow() -> None:
        value: Any = 0
        for _ in range(tasks):
            value = component(x=value).outputs[output]

    return dsl.pipeline(name=f"chain-of-{tasks}")(flow)


def fan_out(width: int) -> Any:
    """Tasks that need nothing of each other."""

    @dsl.pipeline(name=f"fan-out-{width}")
    def flow() -> None:
        with dsl.ParallelFor(list(range(width))) as x:
            step(x=x)

    return flow


def pause(seconds: float) -> Any:
    """One task that takes a known time."""

    @dsl.pipeline(name="pause")
    def flow() -> None:
        rest(seconds=seconds)

    return flow


def compile_all(folder: Path, short: int, long: int, width: int) -> dict[str, Path]:
    """Compile every pipeline; give their files by name."""
    flows = {
        "step-short": chain(step, short, "Output"),
        "step-long": chain(step, long, "Output"),
        "frame": chain(frame, short, "Output"),
        "shell": chain(shell, long, "out"),
        "fan-out": fan_out(width),
        "pause": pause(0.05),
    }
    files = {}
    for name, flow in flows.items():
        files[name] = folder / f"{name}.yaml"
        compiler.Compiler().compile(flow, str(files[name]))
    return files


# A user's file, which compiles itself; the benchmark changes the number in it.
EDITED = '''
from kfp import compiler, dsl


@dsl.component
def step(x: int) -> int:
    return x + {number}


@dsl.pipeline(name="edited")
def flow() -> None:
    step(x=1)


compiler.Compiler().compile(flow, __file__.replace(".py", ".yaml"))
'''
