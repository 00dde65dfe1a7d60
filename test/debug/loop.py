"""A Python and a Rust task fail, are debugged, corrected and finished; twice.

Once by the command line alone (submit, why, debug, rerun), once by the SDK
(PipelineJob.run, and the preview's rerun). What ran, and how long, is told by the
steps themselves (steps.py). The last line is

    debug: ok python_ms=... rust_ms=... platform_share=...% upstream_again=0

python_ms and rust_ms: from the failure of the task to its correction and the end of
the run that goes on with it, by the command line, programs included (ms).
platform_share: of the time that all commands and calls took, the part in which no
step's own code ran; starting interpreters and loading kfp is part of it.
upstream_again: how often a step ran again that had succeeded.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from adapter import Debugger
from server import Server, binary, clean_env

FIXES = {
    "clean": [("int(d) for d in days", "int(d) for d in days if d")],
    "score": [
        ("for i in 0..days.len()", "for i in 1..days.len()"),
        ("days[i + 1] - days[i]", "days[i] - days[i - 1]"),
    ],
}
RESULT = "3 suppliers: acme,2.50 bolt,-4.00 cask,0.00"
RESULT_WITHOUT_RUST = "3 suppliers: acme,3,4,8 bolt,6,2 cask,5,5,5"


class Failure(Exception):
    """Something was not as it must be."""


def need(text, *patterns):
    """Each pattern is in the text."""
    for p in patterns:
        if not re.search(p, text, re.MULTILINE):
            raise Failure(f"{p!r} is not in:\n{text}")


def fixed(step, text):
    for old, new in FIXES[step]:
        if old not in text:
            raise Failure(f"{old!r} is not in the source of {step}")
        text = text.replace(old, new)
    return text


class Clock:
    """Seconds that commands and calls took, and those that steps ran in them."""

    def __init__(self, *books):
        self.seconds = 0.0
        self.books = books

    @contextlib.contextmanager
    def running(self, what):
        began, before = time.monotonic(), self.worked()
        yield
        took = time.monotonic() - began
        self.seconds += took
        print(
            f"{took:7.2f} s, steps {self.worked() - before:5.2f} s: {what}", flush=True
        )

    def worked(self):
        return sum(book.seconds() for book in self.books)


class Book:
    """What the steps wrote of themselves."""

    def __init__(self, path):
        self.path = path

    def lines(self):
        text = self.path.read_text() if self.path.exists() else ""
        return [(step, int(ms)) for step, ms in map(str.split, text.splitlines())]

    def count(self):
        return Counter(step for step, _ in self.lines())

    def seconds(self):
        return sum(ms for _, ms in self.lines()) / 1000


class Loop:
    """One server, and what is done with it."""

    def __init__(self, server, folder, cargo, options):
        self.server, self.folder, self.options = server, folder, options
        self.commands, self.sdk = (
            Book(folder / f"{n}.txt") for n in ("commands", "sdk")
        )
        self.clock = Clock(self.commands, self.sdk)
        self.image = {}  # of the step in Rust: "broken" and "fixed"
        self.score = None
        if cargo:
            self.cargo = cargo
            self.crate = folder / "score"
            shutil.copytree(HERE / "score", self.crate, ignore=lambda *_: ["target"])

    # The command line.

    def tategu(self, *args, code=0, stdin=None, **variables):
        """Run `tategu ARGS` in the folder; give what it printed, both together."""
        env = {**clean_env(), "TATEGU_DATA": str(self.server.data), **variables}
        with self.clock.running("tategu " + " ".join(args)[:90]):
            done = subprocess.run(
                [binary(), *args],
                check=False,
                cwd=self.folder,
                env=env,
                input=stdin,
                stdin=None if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
            )
        if self.options.verbose:
            print(f"$ tategu {' '.join(args)}\n{done.stdout}", flush=True)
        if done.returncode != code:
            text = f"exit code {done.returncode}, not {code}:\n{done.stdout}"
            raise Failure(f"tategu {' '.join(args)}: {text}")
        return done.stdout

    def build(self, which):
        """Compile the step in Rust and make a component of the program as it is."""
        subprocess.run(
            [self.cargo, "build", "--quiet", "--release", "--locked", "--offline"],
            cwd=self.crate,
            check=True,
        )
        folder = self.folder / which
        folder.mkdir()
        shutil.copy(self.crate / "target/release/score", folder)
        words = ["rows:in", "work-ms:int", "book", "scores:out"]
        out = self.tategu(
            *("task", "from", f"{which}/score", "--folder", which, "--yaml"),
            *("--out", f"{which}.yaml"),
            *(w for word in words for w in ("--positional", word)),
        )
        need(out, r"image \S+")
        text = (self.folder / f"{which}.yaml").read_text()
        self.image[which] = re.search(r"image: (\S+)", text).group(1)

    def compile(self, name, *changes):
        """Compile the pipeline, with the step in Rust as it was first."""
        from kfp import compiler, components
        from steps import pipeline

        if self.image and self.score is None:
            path = str(self.folder / "broken.yaml")
            self.score = components.load_component_from_file(path)
        path = self.folder / f"{name}.yaml"
        compiler.Compiler().compile(pipeline(self.score), str(path))
        text = path.read_text()
        for old, new in changes:
            if old not in text:
                raise Failure(f"{old!r} is not in {path}")
            text = text.replace(old, new)
        path.write_text(text)
        return str(path)

    def parameters(self, book):
        o = self.options
        return {
            "book": str(book.path),
            "gather_ms": o.gather_ms,
            "work_ms": o.work_ms,
        }

    def result(self, run):
        """What the last step of a run gave."""
        from google.cloud import aiplatform

        tasks = aiplatform.PipelineJob.get(run).task_details
        return {t.task_name: t for t in tasks}["report"].execution.metadata[
            "output:Output"
        ]

    def by_commands(self, book):
        """The whole loop by the command line; give the runs and the times."""
        path = self.compile("delays")
        given = [
            w for k, v in self.parameters(book).items() for w in ("-p", f"{k}={v}")
        ]
        out = self.tategu("submit", path, *given, "--no-cache", code=1)
        need(out, r"gather  SUCCEEDED", r"clean  FAILED", r"report  NOT RUN")
        need(out, r"`tategu why (delays-\d+)` says more")
        run = run_of(out)

        began = self.clock.seconds
        self.python(run)
        out = self.tategu(
            *("rerun", run, "--from", "clean", "--edit", "clean.py"),
            code=1 if self.image else 0,
        )
        need(out, r"gather  TAKEN OVER", r"clean  SUCCEEDED")
        run = run_of(out)
        python = self.clock.seconds - began

        began = self.clock.seconds
        if self.image:
            need(out, r"score  FAILED")
            self.rust(run)
            out = self.tategu("rerun", run, "--image", self.image["fixed"])
            need(out, r"gather  TAKEN OVER", r"clean  TAKEN OVER", r"score  SUCCEEDED")
            run = run_of(out)
        need(out, r"report  SUCCEEDED")
        return run, python, self.clock.seconds - began

    def python(self, run):
        """Find the bug of the step in Python, and leave its correction in clean.py."""
        error = r"ValueError: invalid literal for int\(\) with base 10: ''"
        out = self.tategu("why", run)
        need(out, r"^task clean failed: .*exit code 1", r"user code", error)
        need(out, rf"go on once it is fixed: tategu rerun {run} --from clean")
        out = self.tategu("debug", run, "clean", "--rerun", code=1)
        need(out, error)

        typed = "./tategu-task; echo it ended with $?\n"
        out = self.tategu("debug", run, "clean", "--shell", stdin=typed)
        need(out, error, r"^it ended with 1$")

        with self.clock.running(f"tategu debug {run} clean --port, and a debugger"):
            self.attach(run)

        editor = self.folder / "editor"
        old, new = FIXES["clean"][0]
        editor.write_text(f'sed -i "s/{old}/{new}/" "$1"; cp "$1" clean.py\n')
        out = self.tategu("debug", run, "clean", "--edit", EDITOR=f"sh {editor}")
        need(out, r"the task succeeded in ", r"output Output: 3")
        need(out, rf"tategu rerun {run} --from clean, with the same --edit")

    def attach(self, run):
        """Attach a debugger: it stops where the exception is raised, and looks."""
        env = {**clean_env(), "TATEGU_DATA": str(self.server.data)}
        with subprocess.Popen(
            [binary(), "debug", run, "clean", "--port"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            seen = ""
            for line in process.stdout:
                seen += line
                if found := re.match(r"tategu: waiting for .* on ([\d.]+):(\d+)", line):
                    break
            else:
                raise Failure(f"the task does not wait for a debugger:\n{seen}")
            with Debugger(found.group(1), int(found.group(2))) as debugger:
                days = debugger.at_exception("clean", "days")
            out = seen + process.communicate(timeout=300)[0]
        if self.options.verbose:
            print(
                f"$ tategu debug {run} clean --port\n{out}the debugger saw days = {days}"
            )
        if days != "['', '6', '2']":
            raise Failure(f"the debugger saw days = {days}\n{out}")
        if process.returncode != 1:
            raise Failure(f"debug --port: exit code {process.returncode}\n{out}")

    def rust(self, run):
        """Find the bug of the step in Rust, correct its source, and build it."""
        panic = r"index out of bounds: the len is 3 but the index is 3"
        out = self.tategu("why", run)
        need(out, rf"^task score failed: it panicked at src/main.rs:\d+:\d+: {panic}")
        need(out, r"exit code 101, cause: user code", r"^ +\d+: .*trend$")
        out = self.tategu("debug", run, "score", "--rerun", code=101)
        need(out, r"^scoring 3 suppliers$", panic)
        typed = "RUST_BACKTRACE=full ./tategu-task; echo it ended with $?\n"
        out = self.tategu("debug", run, "score", "--shell", stdin=typed)
        need(out, panic, r"^it ended with 101$")

        source = self.crate / "src/main.rs"
        source.write_text(fixed("score", source.read_text()))
        self.build("fixed")
        out = self.tategu("debug", run, "score", "--image", self.image["fixed"])
        need(out, r"^scoring 3 suppliers$", r"the task succeeded in ")

    # The SDK.

    def by_sdk(self, book):
        """The same failures, corrected by PipelineJob.rerun(); give the last run."""
        from google.cloud import aiplatform
        from google.cloud.aiplatform.preview.pipelinejob.pipeline_jobs import (
            _PipelineJob as PreviewPipelineJob,
        )

        root = "gs://tategu-vertex-pipelines-us-central1/sdk"
        common = {"pipeline_root": root, "parameter_values": self.parameters(book)}
        first = aiplatform.PipelineJob(
            display_name="delays",
            job_id=f"sdk-{uuid.uuid4().hex}",
            template_path=self.compile("delays"),
            enable_caching=False,
            **common,
        )
        with self.clock.running("PipelineJob.run()"):
            need(failure(first.run), r"clean.*invalid literal for int")
        python = FIXES["clean"]
        stages = [python]
        if self.image:
            stages.append([*python, (self.image["broken"], self.image["fixed"])])
        job = first
        for n, changes in enumerate(stages):
            again = PreviewPipelineJob(
                display_name="delays",
                template_path=self.compile(f"delays-{n}", *changes),
                enable_caching=False,
                **common,
            )
            with self.clock.running("PipelineJob.rerun() and wait()"):
                again.rerun(
                    original_pipelinejob_name=job.resource_name,
                    pipeline_task_rerun_configs=[],
                    job_id=f"sdk-{uuid.uuid4().hex}",
                )
                if n + 1 < len(stages):
                    need(failure(again.wait), r"score.*index out of bounds")
                else:
                    again.wait()
            job = again
        return job.resource_name


def failure(call):
    """What a call raises."""
    try:
        call()
    except RuntimeError as err:
        return str(err)
    raise Failure("a run succeeded that must not")


def run_of(out):
    return re.search(r"run projects/\S+/(\S+)", out).group(1)


def check(name, ran, want):
    """Say which steps ran more often than they may; give how often."""
    again = sum(max(0, ran[step] - want[step]) for step in want)
    less = [step for step in want if ran[step] < want[step]]
    if again or less:
        print(f"{name}: steps ran {dict(ran)}, not {want}")
    if less:
        raise Failure(f"{name}: {', '.join(less)} did not run as often as it must")
    return again


def main():
    parse = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parse.add_argument(
        "--gather-ms", type=int, default=2000, help="work of the first step"
    )
    parse.add_argument("--work-ms", type=int, default=500, help="work of the others")
    parse.add_argument("-v", "--verbose", action="store_true", help="show each command")
    options = parse.parse_args()
    cargo = shutil.which("cargo")
    if cargo is None:
        print("debug: the task in Rust is skipped: cargo is not installed")
    folder = Path(tempfile.mkdtemp(prefix="tategu-debug-"))
    with Server(folder) as server:
        started = dict(os.environ)
        os.environ.clear()
        os.environ.update(server.env("--intercept"))
        os.environ["PATH"] = started["PATH"]
        from google.cloud import aiplatform

        aiplatform.init(project="tategu", location="us-central1")
        run(Loop(server, folder, cargo, options))
    shutil.rmtree(folder)


def run(loop):
    if hasattr(loop, "cargo"):
        loop.build("broken")
    warm(loop)
    loop.clock.seconds = 0.0

    last, python, rust = loop.by_commands(loop.commands)
    other = loop.by_sdk(loop.sdk)
    want = RESULT if loop.image else RESULT_WITHOUT_RUST
    for name in (last, other):
        if (got := loop.result(name)) != want:
            raise Failure(f"{name} gave {got!r}, not {want!r}")

    # By hand: as it was in the run, --rerun, in the shell, --port, --edit, and rerun.
    once = {"gather": 1, "clean": 6, "report": 1}
    twice = {"gather": 1, "clean": 2, "report": 1}
    if loop.image:
        once["score"], twice["score"] = 5, 2
    again = check("command line", loop.commands.count(), once)
    again += check("SDK", loop.sdk.count(), twice)
    work = loop.clock.worked()
    share = (loop.clock.seconds - work) / loop.clock.seconds
    print(
        f"commands and calls took {loop.clock.seconds:.1f} s, steps ran for {work:.1f} s"
    )
    rust_ms = f"{rust * 1000:.0f}" if loop.image else "skipped"
    print(
        f"debug: {'failed' if again else 'ok'} python_ms={python * 1000:.0f} rust_ms={rust_ms}"
        f" platform_share={share * 100:.0f}% upstream_again={again}"
    )
    if again:
        sys.exit(1)


def warm(loop):
    """Make the Python environments, which happens once on a machine."""
    book = Book(loop.folder / "warm.txt")
    given = {**loop.parameters(book), "gather_ms": 0, "work_ms": 0}
    words = [w for k, v in given.items() for w in ("-p", f"{k}={v}")]
    path = loop.compile("warm", *FIXES["clean"])
    out = loop.tategu("submit", path, *words, code=1 if loop.image else 0)
    need(out, r"clean  SUCCEEDED")


if __name__ == "__main__":
    try:
        main()
    except Failure as err:
        print(f"debug: failed: {err}")
        sys.exit(1)
