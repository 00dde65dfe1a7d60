"""What a task of a pipeline costs here, beside kfp.local and a loop of a shell.

    python pipelines.py --local PYTHON [--rounds 10] [--local-rounds 3]
                        [--venv-rounds 2] [--width 100] [--short]

Every round runs every way once, so that a busy machine is busy for all of them.
kfp.local takes seconds a task, so it has fewer rounds. --short is one round of
kfp.local without, none with a virtual environment, and three of the rest.
PYTHON is that of an environment with kfp and pip, for kfp.local and the shell.

Times are from the request that makes a run to the answer that it has succeeded,
over the number of its tasks where a row says so. The last line is by medians:

    warm_ms=... cold_ms=... sh_ms=... vs_kfp_local=...x chain20_vs_shell=...x
    run_ms=... edit_ms=...

(in one line). run_ms is that of jobs with an id: without, the SDK makes one of the
second, and the end is told once that is over, so that the next run has another id; this
has a row of its own. vs_kfp_local is the smaller of the ratios of the short and the long
chain, with no virtual environment.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from flows import compile_all
from ways import SDK, Local, Tategu

SHORT, LONG = 3, 20  # tasks of the chains


@dataclass
class Way:
    """One row: what runs, how many tasks it has, in how many rounds."""

    name: str
    run: Callable[[], float]
    tasks: int
    rounds: int
    times: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Run once; keep milliseconds a task."""
        self.times.append(self.run() * 1000 / self.tasks)

    @property
    def median(self) -> float:
        """Milliseconds a task."""
        return statistics.median(self.times)

    def line(self) -> str:
        """The row."""
        unit = "ms a task" if self.tasks > 1 else "ms"
        if not self.times:
            return f"{self.name:34} not run"
        least = min(self.times)
        figures = f"min {least:9.1f}  median {self.median:9.1f} {unit}"
        return f"{self.name:34} {figures}  ({len(self.times)} rounds)"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--local", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--local-rounds", type=int, default=3)
    parser.add_argument("--venv-rounds", type=int, default=2)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    if given.short:
        given.rounds, given.local_rounds, given.venv_rounds = 3, 1, 0
    if min(given.rounds, given.local_rounds, given.width) < 1:
        parser.error("--rounds, --local-rounds and --width are 1 at least")
    return given


def say(text: str) -> None:
    """Progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def warm_up(warm: Tategu, cold: Tategu, files: dict[str, Path]) -> None:
    """Make environments, and the processes that have loaded what components import:
    a run of each pipeline makes them, the next ones use them."""
    for name in ("step-short", "frame"):
        say(f"prepare {name}")
        cold.run(files[name])
        before = -1
        while warm.starts().get("warm", 0) - before < SHORT:
            before = warm.starts().get("warm", 0)
            warm.run(files[name])
    warm.run(files["shell"])
    warm.edit()


def ways(
    given: argparse.Namespace,
    files: dict[str, Path],
    warm: Tategu,
    cold: Tategu,
    sdk: SDK,
    local: Local,
) -> dict[str, Way]:
    """Every row of the table, in the order of a round."""
    short, long = files["step-short"], files["step-long"]
    n, few, venv = given.rounds, given.local_rounds, given.venv_rounds
    width = given.width
    return {
        "warm3": Way("tategu, warm, 3 tasks", lambda: warm.run(short), SHORT, n),
        "warm20": Way("tategu, warm, 20 tasks", lambda: warm.run(long), LONG, n),
        "cold": Way("tategu, cold, 3 tasks", lambda: cold.run(short), SHORT, n),
        "sh": Way("tategu, container-style, 20 tasks", lambda: warm.run(files["shell"]), LONG, n),
        "loop3": Way("shell, cold python, 3 tasks", lambda: local.shell(short, SHORT), SHORT, n),
        "loop20": Way("shell, cold python, 20 tasks", lambda: local.shell(long, LONG), LONG, n),
        "wide": Way(f"tategu, warm, {width} at once", lambda: warm.run(files["fan-out"]), width, n),
        "pandas": Way("tategu, warm, imports pandas", lambda: warm.run(files["frame"]), SHORT, n),
        "coldpandas": Way("tategu, cold, imports pandas", lambda: cold.run(files["frame"]), SHORT, n),
        "run": Way("SDK, run() of 50 ms, job_id given", sdk.run_named, 1, n),
        "second": Way("SDK, run() of 50 ms, id of the SDK", sdk.run, 1, n),
        "edit": Way("component saved -> SUCCEEDED", warm.edit, 1, n),
        "local3": Way("kfp.local, no venv, 3 tasks", lambda: local.run(short), SHORT, few),
        "local20": Way("kfp.local, no venv, 20 tasks", lambda: local.run(long), LONG, few),
        "venv3": Way("kfp.local, venv, 3 tasks", lambda: local.run(short, "--venv"), SHORT, venv),
    }


def report(rows: dict[str, Way], warm: Tategu, cold: Tategu) -> None:
    """The table, how programs were started, and the last line."""
    for way in rows.values():
        print(way.line())
    print(f"starts: warm server {warm.starts()}, cold server {cold.starts()}")
    median = {name: way.median for name, way in rows.items() if way.times}
    against = min(median["local3"] / median["warm3"], median["local20"] / median["warm20"])
    print(
        f"warm_ms={median['warm20']:.1f} cold_ms={median['cold']:.1f} sh_ms={median['sh']:.1f}"
        f" vs_kfp_local={against:.1f}x chain20_vs_shell={median['loop20'] / median['warm20']:.1f}x"
        f" run_ms={median['run']:.0f} edit_ms={median['edit']:.0f}"
    )


def main() -> None:
    """Measure."""
    given = arguments()
    folder = Path(tempfile.mkdtemp(prefix="bench-pipelines-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        files = compile_all(folder, SHORT, LONG, given.width)
        warm = stack.enter_context(Tategu(folder / "warm", zygotes=True))
        cold = stack.enter_context(Tategu(folder / "cold", zygotes=False))
        warm_up(warm, cold, files)
        sdk = stack.enter_context(SDK(warm.server, files["pause"]))
        sdk.run()  # makes the bucket
        rows = ways(given, files, warm, cold, sdk, Local(given.local.absolute(), folder / "local"))
        for number in range(max(given.rounds, given.local_rounds, given.venv_rounds)):
            for way in rows.values():
                if number < way.rounds:
                    way.measure()
                    say(f"round {number + 1}: {way.name}: {way.times[-1]:.1f} ms")
        report(rows, warm, cold)


main()
