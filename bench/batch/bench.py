"""Batch prediction beside a script, and what it does to an endpoint.

A LightGBM model of 100 trees over 20 features scores ROWS lines of JSON with a key, into
Parquet. The script is what one writes: lines are read by json.loads or by pyarrow.json,
whichever is faster, rows become a numpy array, and two processes share the file. Both are
timed in turns, the script with the start of Python and its imports, the job from its
creation to its end. Then a small endpoint is asked at a constant rate, without and with a
job at work, in turns.

The last line is `rows_vs_script=...x rss_mb=... online_p99_ratio=...`: medians; the peak
memory of the server and its workers together.
"""

import argparse
import contextlib
import glob
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "test"))

from server import Server

LOCATION = "projects/p/locations/us-central1"
FEATURES = 20


def call(server, method, path, body=None):
    """A request in JSON."""
    data = None if body is None else json.dumps(body).encode()
    return json.loads(server.request(method, path, data))


def prepare(folder, rows):
    """The model, and the input."""
    import lightgbm
    import numpy

    rng = numpy.random.default_rng(7)
    x = rng.random((5000, FEATURES))
    params = {"objective": "binary", "num_leaves": 31, "verbose": -1, "num_threads": 2}
    data = lightgbm.Dataset(x, (x[:, 0] + x[:, 1] * x[:, 2] > 0.8).astype(int))
    lightgbm.train(params, data, num_boost_round=100).save_model(folder / "model.txt")
    with open(folder / "in.jsonl", "w") as out:
        for start in range(0, rows, 10_000):
            block = rng.random((min(10_000, rows - start), FEATURES)).round(5).tolist()
            for i, values in enumerate(block, start):
                fields = {"id": i} | {f"Column_{k}": v for k, v in enumerate(values)}
                out.write(json.dumps(fields) + "\n")


def script(folder, reader):
    """Seconds that the script takes."""
    begin = time.monotonic()
    command = [sys.executable, Path(__file__).parent / "script.py", folder, reader]
    subprocess.run(command, check=True)
    return time.monotonic() - begin


class Memory(threading.Thread):
    """The peak of what the server and its workers hold."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.peak, self.over = server, 0, threading.Event()

    def run(self):
        while not self.over.wait(0.05):
            self.peak = max(self.peak, sum(map(self.of, self.pids())))

    def pids(self):
        yield self.server.process.pid
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                text = Path(path).read_bytes()
                if b"batch-worker" in text and str(self.server.data).encode() in (
                    Path(path).parent / "environ"
                ).read_bytes() + text:
                    yield int(path.split("/")[2])

    @staticmethod
    def of(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1000
        return 0


def create(server):
    body = {
        "displayName": "bench",
        "model": f"{LOCATION}/models/m",
        "inputConfig": {
            "instancesFormat": "jsonl",
            "gcsSource": {"uris": ["gs://bench/in.jsonl"]},
        },
        "outputConfig": {
            "predictionsFormat": "parquet",
            "gcsDestination": {"outputUriPrefix": "gs://bench/out"},
        },
        "instanceConfig": {"keyField": "id"},
        "dedicatedResources": {"machineSpec": {"machineType": "n1-standard-2"}},
    }
    return call(server, "POST", f"/v1/{LOCATION}/batchPredictionJobs", body)["name"]


def wait(server, name, rows):
    while not (state := call(server, "GET", f"/v1/{name}")).get("endTime"):
        time.sleep(0.02)
    stats = state.get("completionStats", {})
    if int(stats.get("successfulCount", 0)) != rows:
        raise SystemExit(f"the job ended {state['state']}: {stats} {state.get('error')}")


def job(server, rows):
    begin = time.monotonic()
    wait(server, create(server), rows)
    return time.monotonic() - begin


def deploy(server):
    made = call(server, "POST", f"/v1/{LOCATION}/endpoints", {"displayName": "e"})
    endpoint = made["response"]["name"]
    resources = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1}
    body = {"model": f"{LOCATION}/models/m", "dedicatedResources": resources}
    path = f"/v1/{endpoint}:deployModel"
    made = call(server, "POST", path, {"deployedModel": body})
    while not made.get("done"):
        time.sleep(0.05)
        made = call(server, "GET", f"/v1/{made['name']}")
    return endpoint


def online(server, endpoint, rate, seconds):
    """The p99 of requests that are sent by the clock, from when they were due."""
    body = json.dumps({"instances": [[0.5] * FEATURES]})
    spent = []
    link = http.client.HTTPConnection(server.address)
    begin = time.monotonic()
    for n in range(int(rate * seconds)):
        due = begin + n / rate
        if (early := due - time.monotonic()) > 0:
            time.sleep(early)
        headers = {"Content-Type": "application/json"}
        link.request("POST", f"/v1/{endpoint}:predict", body, headers)
        answer = link.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        spent.append(time.monotonic() - due)
    link.close()
    return sorted(spent)[int(len(spent) * 0.99)] * 1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=100)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tategu-bench-batch-"))
    prepare(folder, options.rows)
    took = {"json.loads": [], "pyarrow.json": [], "tategu": []}
    alone, beside, peaks = [], [], []
    with Server(folder, "buckets: [bench]\nproject: p\n") as server:
        server.put("bench", "m/model.txt", (folder / "model.txt").read_bytes())
        server.command("cp", str(folder / "in.jsonl"), "gs://bench/in.jsonl")
        body = {"model": {"displayName": "m", "artifactUri": "gs://bench/m"}}
        call(server, "POST", f"/v1/{LOCATION}/models:upload", body | {"modelId": "m"})
        for _ in range(options.rounds):
            for reader in ("json.loads", "pyarrow.json"):
                took[reader].append(script(folder, reader))
            memory = Memory(server)
            memory.start()
            took["tategu"].append(job(server, options.rows))
            memory.over.set()
            memory.join()
            peaks.append(memory.peak)
        endpoint = deploy(server)
        online(server, endpoint, options.rate, 2)
        seconds = max(2.0, statistics.median(took["tategu"]) * 0.8)
        for _ in range(options.rounds):
            alone.append(online(server, endpoint, options.rate, seconds))
            name = create(server)
            time.sleep(0.3)
            beside.append(online(server, endpoint, options.rate, seconds))
            wait(server, name, options.rows)
    shutil.rmtree(folder, ignore_errors=True)
    for name, values in took.items():
        per = options.rows / statistics.median(values)
        print(f"{name:14} min {min(values):.2f} s, median {statistics.median(values):.2f} s, {per:,.0f} rows/s")
    print(f"online p99     alone {sorted(alone)} ms, beside a job {sorted(beside)} ms")
    best = min(statistics.median(took[r]) for r in ("json.loads", "pyarrow.json"))
    print(
        f"rows_vs_script={best / statistics.median(took['tategu']):.2f}x"
        f" rss_mb={max(peaks):.0f}"
        f" online_p99_ratio={statistics.median(beside) / statistics.median(alone):.2f}"
    )


if __name__ == "__main__":
    main()
