"""How long the server takes to be ready again after kill -9, with many runs stored.

    python recover.py --binary bin/tategu [--runs 10000] [--running 20] [--kills 20]

Everything is made through the API: one pipeline run of three tasks runs its
programs, the other finished ones take their tasks from the cache, and the running
ones wait in a program each. Then the server is killed and started again, over and
over. The last line is `ready_p50_ms=... ready_p95_ms=... runs=... adopted=...`: the
time from exec to the first 200 of /readyz, and how many programs the last start
took over.
"""

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "start"))

from start import free_port, ready, resident_mb

JOBS = "/v1/projects/bench/locations/us-central1/pipelineJobs"
WRITE = 'mkdir -p "$(dirname "$0")" && printf 1 >"$0"'
WAIT = 'touch "$0"; exec sleep 86400'


def pipeline(name: str, script: str, tasks: int, argument: str) -> dict[str, Any]:
    """A compiled pipeline of tasks in a row, each a shell script with an argument."""
    dag: dict[str, Any] = {}
    for n in range(tasks):
        task = {
            "cachingOptions": {"enableCache": True},
            "componentRef": {"name": "comp-step"},
            "taskInfo": {"name": f"step-{n}"},
            "inputs": {"parameters": {"number": {"runtimeValue": {"constant": n}}}},
        }
        if n:
            task["dependentTasks"] = [f"step-{n - 1}"]
        dag[f"step-{n}"] = task
    container = {"image": "bench/shell", "args": ["-c", script, argument]}
    integer = {"parameterType": "NUMBER_INTEGER"}
    return {
        "pipelineInfo": {"name": name},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.0.0",
        "components": {
            "comp-step": {
                "executorLabel": "exec-step",
                "inputDefinitions": {"parameters": {"number": integer}},
                "outputDefinitions": {"parameters": {"out": integer}},
            }
        },
        "deploymentSpec": {"executors": {"exec-step": {"container": container}}},
        "root": {"dag": {"tasks": dag}},
    }


class Server:
    """One data directory and the server on it, started many times."""

    def __init__(self, binary: str, folder: Path):
        self.folder = folder
        self.port = free_port()
        config = folder / "tategu.yaml"
        config.write_text("images:\n  - {match: bench/shell, command: [sh]}\n")
        self.command = [binary, "serve", "--data", str(folder / "data")]
        self.command += ["--config", str(config), "--listen", f"127.0.0.1:{self.port}"]
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start; give milliseconds from exec to the first 200 of /readyz."""
        with open(self.log, "ab") as out:
            began = time.perf_counter()
            self.process = subprocess.Popen(
                self.command, stdout=out, stderr=out, cwd=self.folder
            )
        while not ready("127.0.0.1", self.port):
            late = time.perf_counter() - began > 120
            if late or self.process.poll() is not None:
                raise RuntimeError(f"not ready:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.001)
        return (time.perf_counter() - began) * 1000

    def end(self, how: signal.Signals) -> None:
        """Send a signal to the server alone, and wait for its end."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """Give the body of a good answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            content = None if body is None else json.dumps(body)
            link.request(method, path, content, {"Content-Type": "application/json"})
            answer = link.getresponse()
            text = answer.read()
        finally:
            link.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:600]!r}")
        return text

    def submit(self, run: str, spec: dict[str, Any]) -> None:
        """Create a run."""
        root = {"gcsOutputDirectory": "gs://bench-runs/root"}
        body = {"displayName": "bench", "pipelineSpec": spec, "runtimeConfig": root}
        self.ask("POST", f"{JOBS}?pipelineJobId={run}", body)

    def count(self, state: str) -> int:
        """How many runs are in a state."""
        query = quote(f'state="PIPELINE_STATE_{state}"')
        count, token = 0, ""
        while True:
            path = f"{JOBS}?pageSize=100&readMask=name&filter={query}&pageToken={token}"
            page = json.loads(self.ask("GET", path))
            count += len(page.get("pipelineJobs", []))
            token = quote(page.get("nextPageToken", ""))
            if not token:
                return count

    def metric(self, name: str) -> int:
        """A number of /metrics."""
        text = self.ask("GET", "/metrics").decode()
        found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"/metrics has no {name}")
        return int(found.group(1))


def wait_for(what: str, holds, seconds: float = 600) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {seconds} s still not: {what}")
        time.sleep(0.2)


def fill(server: Server, runs: int, running: int) -> None:
    """Make finished runs and running ones."""
    output = "{{$.outputs.parameters['out'].output_file}}"
    quick = pipeline("quick", WRITE, 3, output)
    server.submit("run-0", quick)
    wait_for("the first run is done", lambda: server.count("SUCCEEDED") == 1)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda n: server.submit(f"run-{n}", quick), range(1, runs)):
            pass
    unfinished = ("PENDING", "RUNNING")
    wait_for("all runs are done", lambda: not any(map(server.count, unfinished)))
    done = server.count("SUCCEEDED")
    took = time.monotonic() - began
    print(f"{done} runs succeeded, {done / took:.0f} a second", flush=True)
    if done != runs:
        raise RuntimeError(f"{done} runs of {runs} succeeded")
    for n in range(running):
        sign = server.folder / f"running-{n}"
        server.submit(f"waiting-{n}", pipeline("waiting", WAIT, 1, str(sign)))
        wait_for("the program of a run has started", sign.exists)


def cancel(server: Server, running: int) -> None:
    """End the running runs, and with them their programs."""
    for n in range(running):
        server.ask("POST", f"{JOBS}/waiting-{n}:cancel", {})
    wait_for("all are cancelled", lambda: server.count("CANCELLED") == running)


def measure(server: Server, kills: int) -> list[float]:
    """Kill and start; a table line each."""
    times = []
    print("kill  ready_ms  adopted  rss_mb", flush=True)
    for n in range(1, kills + 1):
        server.end(signal.SIGKILL)
        times.append(server.start())
        adopted = server.metric("tategu_workloads_adopted_total")
        assert server.process is not None
        memory = resident_mb(server.process.pid)
        print(f"{n:4}  {times[-1]:8.0f}  {adopted:7}  {memory:6.1f}", flush=True)
    return times


def main() -> int:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--binary", default="bin/tategu")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--running", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-recover-") as folder:
        server = Server(os.path.abspath(options.binary), Path(folder))
        try:
            server.start()
            fill(server, options.runs, options.running)
            size = (server.folder / "data" / "state.db").stat().st_size / 1e6
            print(f"state.db has {size:.0f} MB", flush=True)
            times = sorted(measure(server, options.kills))
            adopted = server.metric("tategu_workloads_adopted_total")
            if adopted != options.running:
                raise RuntimeError(f"{adopted} adopted of {options.running} programs")
            cancel(server, options.running)
        finally:
            server.end(signal.SIGTERM)
    p50 = statistics.median(times)
    p95 = times[(len(times) * 95 + 99) // 100 - 1]
    print(
        f"ready_p50_ms={p50:.0f} ready_p95_ms={p95:.0f}"
        f" runs={options.runs} adopted={adopted}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
