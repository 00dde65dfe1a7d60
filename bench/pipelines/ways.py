"""The ways to run a pipeline that are measured beside each other."""

import http.client
import json
import re
import shlex
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Self

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "test"))

from flows import EDITED, MARK
from server import Server, binary, clean_env

PROJECT, LOCATION = "bench", "us-central1"
JOBS = f"/v1/projects/{PROJECT}/locations/{LOCATION}/pipelineJobs"
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "PAUSED")
IMAGES = """
images:
  - {match: "*python*", python: "3.11", "python.match": any}
  - {match: alpine, command: [env]}
"""


class Tategu:
    """A server, and one connection to it."""

    def __init__(self, folder: Path, zygotes: bool):
        folder.mkdir()
        flag = "true" if zygotes else "false"
        self.folder = folder
        self.server = Server(folder, IMAGES + f"python: {{zygote: {flag}}}\n")
        self.link = http.client.HTTPConnection(self.server.address, timeout=600)
        self.edits = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()
        self.server.stop()

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Give the JSON of a good answer."""
        content = None if body is None else json.dumps(body)
        self.link.request(method, path, content, {"Content-Type": "application/json"})
        answer = self.link.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text!r:.2000}")
        found: dict[str, Any] = json.loads(text)
        return found

    def run(self, file: Path) -> float:
        """Run a compiled pipeline, nothing cached; give seconds until the answer that
        it has succeeded."""
        spec = yaml.safe_load(file.read_text())
        uncache(spec)
        job = {
            "displayName": file.stem,
            "pipelineSpec": spec,
            "runtimeConfig": {"gcsOutputDirectory": "gs://bench/root"},
        }
        began = time.perf_counter()
        made = self.ask("POST", JOBS, job)
        while True:
            job = self.ask("GET", f"/v1/{made['name']}")
            state = job["state"].removeprefix("PIPELINE_STATE_")
            if state in ENDED:
                break
        took = time.perf_counter() - began
        if state != "SUCCEEDED":
            raise RuntimeError(f"{file.name}: {state} {job.get('error')}")
        return took

    def edit(self) -> float:
        """Save a changed component, then compile and submit the pipeline as a user
        would, until it has succeeded."""
        self.edits += 1
        file = self.folder / "edited.py"
        line = f"{shlex.quote(sys.executable)} {file} && {shlex.quote(binary())} submit"
        line += f" --data {self.server.data} --project {PROJECT} {file.with_suffix('.yaml')}"
        env = clean_env()
        began = time.perf_counter()
        file.write_text(EDITED.format(number=MARK + self.edits))
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=env)
        took = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"{line}: {done.stdout}{done.stderr}")
        return took

    def starts(self) -> dict[str, int]:
        """How Python components were started so far."""
        text = self.server.request("GET", "/metrics").decode()
        found = re.findall(r'tategu_python_starts_total\{start="(\w+)"\} (\d+)', text)
        return {start: int(n) for start, n in found}


def uncache(spec: dict[str, Any]) -> None:
    """Switch the cache off for every task, as the SDK does it."""
    for part in [spec["root"], *spec["components"].values()]:
        for task in part.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {}


class SDK:
    """A process with the SDK imported."""

    def __init__(self, server: Server, file: Path):
        command = [sys.executable, str(HERE / "sdkrun.py"), str(file), PROJECT, LOCATION]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=server.env("--intercept"),
        )
        self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(60)

    def read(self) -> str:
        """Give its next line."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError("the SDK's process has ended")
        return line

    def run(self, job_id: str = "") -> float:
        """Seconds that a run() takes."""
        if self.process.stdin:
            self.process.stdin.write(job_id + "\n")
            self.process.stdin.flush()
        return float(self.read())

    def run_named(self) -> float:
        """The same with a job_id of the caller's."""
        return self.run(f"pause-{uuid.uuid4()}")


class Local:
    """kfp.local, and what its command lines come to without it."""

    def __init__(self, python: Path, folder: Path):
        folder.mkdir()
        self.python, self.folder = python, folder

    def run(self, file: Path, *flags: str) -> float:
        """Seconds that kfp.local takes for a pipeline."""
        command = [self.python, HERE / "kfplocal.py", file, self.folder, *flags]
        # Its components find their Python by its path, and pip beside it.
        env = clean_env()
        env["PATH"] = f"{self.python.parent}:{env['PATH']}"
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=env
        )
        if done.returncode:
            raise RuntimeError(f"kfp.local: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return float(done.stdout.strip().splitlines()[-1])

    def shell(self, file: Path, tasks: int) -> float:
        """Seconds for the same tasks in a loop of a shell: a cold Python for each,
        nothing installed, nothing kept."""
        spec = yaml.safe_load(file.read_text())
        executor = next(iter(spec["deploymentSpec"]["executors"].values()))
        source = executor["container"]["command"][-1]
        component = self.folder / "component.py"
        component.write_text(source)
        executor_input = {
            "inputs": {"parameterValues": {"x": 1}},
            "outputs": {
                "parameters": {"Output": {"outputFile": str(self.folder / "Output")}},
                "outputFile": str(self.folder / "executor_output.json"),
            },
        }
        function = executor["container"]["args"][-1]
        loop = 'n=$1; shift; while [ "$n" -gt 0 ]; do "$@" || exit; n=$((n - 1)); done'
        command = ["sh", "-c", loop, "sh", str(tasks), str(self.python), "-m"]
        command += ["kfp.dsl.executor_main", "--component_module_path", str(component)]
        command += ["--executor_input", json.dumps(executor_input)]
        command += ["--function_to_execute", function]
        env = clean_env() | {"_KFP_RUNTIME": "true"}
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        took = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"shell: {done.stderr[-2000:]}")
        return took
