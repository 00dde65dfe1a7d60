"""Kills workers and the server while batch prediction jobs run, and counts what came out.

Each of the jobs writes 400,000 records: into Parquet files, into a table of SQLite and,
where it is installed, into one of a real PostgreSQL. kill -9 hits a worker or the server
at seeded moments. At the end each record must be in each output exactly once, and the
webhook must have been told of each job by one event id.

The last line is `batch-kills: ok kills=... rows=... events=...`.
"""

import argparse
import base64
import contextlib
import glob
import http.server
import json
import os
import pwd
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server

ROWS = 400_000
WAIT = 600
LOCATION = "projects/p/locations/us-central1"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes events; every other attempt fails."""

    seen: dict[str, set[str]] = {}
    attempts = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Receiver.attempts += 1
        event = json.loads(body)
        ids = Receiver.seen.setdefault(event["subject"], set())
        ids.add(self.headers["webhook-id"])
        assert event["id"] == self.headers["webhook-id"]
        self.send_response(500 if Receiver.attempts % 2 else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def postgres(folder):
    """A PostgreSQL of its own; None where it is not installed."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    if not found:
        print("PostgreSQL is not installed: the job into it is left out")
        yield None
        return
    bin_dir = Path(found[-1]).parent
    home = Path(tempfile.mkdtemp(prefix="tategu-pg-"))
    user = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    common = {"cwd": home, "stdout": subprocess.DEVNULL, **user}
    command = [bin_dir / "initdb", "-D", home / "data", "-A", "trust", "-U", "tategu"]
    subprocess.run(command, check=True, **common)
    command = [bin_dir / "postgres", "-D", home / "data", "-k", home]
    command += ["-c", "listen_addresses="]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, **common)
    try:
        ready = [bin_dir / "pg_isready", "-h", home, "-U", "tategu"]
        while subprocess.run(ready, check=False, stdout=subprocess.DEVNULL).returncode:
            time.sleep(0.1)
        yield home, bin_dir
    finally:
        running.send_signal(signal.SIGQUIT)
        running.wait()
        shutil.rmtree(home, ignore_errors=True)


def workers(data):
    """The pids of the batch workers of a data directory."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = Path(path).read_bytes().split(b"\0")
            if words[1:2] == [b"batch-worker"]:
                cwd = os.readlink(Path(path).parent / "cwd")
                if cwd.startswith(str(data)):
                    found.append(int(path.split("/")[2]))
    return found


def listens(pid):
    """A worker that takes requests. One whose start fails thrice in a row ends the job, as any server would."""
    with contextlib.suppress(OSError):
        table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        rows = [line.split() for line in table]
        waiting = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
        return any(os.readlink(fd) in waiting for fd in glob.glob(f"/proc/{pid}/fd/*"))
    return False


def job(name, destination, form):
    config = {"predictionsFormat": form, **destination}
    return {
        "displayName": name,
        "model": f"{LOCATION}/models/m",
        "inputConfig": {
            "instancesFormat": "jsonl",
            "gcsSource": {"uris": ["gs://bkt/in.jsonl"]},
        },
        "outputConfig": config,
        "instanceConfig": {"keyField": "id"},
        "dedicatedResources": {
            "machineSpec": {"machineType": "n1-standard-1"},
            "startingReplicaCount": 2,
            "maxReplicaCount": 2,
        },
    }


def call(server, method, path, body=None):
    """A request in JSON."""
    data = None if body is None else json.dumps(body).encode()
    return json.loads(server.request(method, path, data))


def media(name):
    return f"/storage/v1/b/bkt/o/{urllib.parse.quote(name, safe='')}?alt=media"


def train(path):
    import lightgbm
    import numpy

    rng = numpy.random.default_rng(1)
    x = rng.random((2000, 8))
    params = {"objective": "regression", "verbose": -1, "num_threads": 1}
    data = lightgbm.Dataset(x, x[:, 0] + x[:, 1])
    lightgbm.train(params, data, num_boost_round=100).save_model(path)


def unique(keys, where):
    keys = list(keys)
    if len(keys) != ROWS or set(keys) != set(range(ROWS)):
        distinct = len(set(keys))
        raise SystemExit(f"{where}: {len(keys)} rows, {distinct} keys, want {ROWS}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    hook = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    folder = Path(tempfile.mkdtemp(prefix="tategu-batch-kills-"))
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    with postgres(folder) as pg:
        config = "buckets: [bkt]\nproject: p\nwebhooks:\n"
        config += f"  - url: http://127.0.0.1:{hook.server_port}/\n    secret: {secret}\n"
        config += "warehouses:\n  lite: {sqlite: " + str(folder / "w.db") + "}\n"
        if pg:
            config += f"  pg: {{postgres: 'host={pg[0]} user=tategu dbname=postgres sslmode=disable'}}\n"
        done = run(folder, config, options.kills, dice, pg)
    events = 0
    for name in done:
        ids = Receiver.seen.get(name, set())
        if len(ids) != 1:
            raise SystemExit(f"{name} was told of by {len(ids)} event ids")
        events += 1
    shutil.rmtree(folder, ignore_errors=True)
    print(f"batch-kills: ok kills={options.kills} rows={ROWS * len(done)} events={events}")


def run(folder, config, kills, dice, pg):
    train(folder / "model.txt")
    server = Server(folder, config)
    server.put("bkt", "m/model.txt", (folder / "model.txt").read_bytes())
    lines = []
    for i in range(ROWS):
        values = [dice.random() for _ in range(8)]
        fields = {"id": i} | {f"Column_{k}": round(v, 4) for k, v in enumerate(values)}
        lines.append(json.dumps(fields))
    server.put("bkt", "in.jsonl", "\n".join(lines).encode())
    body = {"model": {"displayName": "m", "artifactUri": "gs://bkt/m"}, "modelId": "m"}
    call(server, "POST", f"/v1/{LOCATION}/models:upload", body)
    files = {"gcsDestination": {"outputUriPrefix": "gs://bkt/out"}}
    wanted = [("files", files, "parquet")]
    lite = {"bigqueryDestination": {"outputUri": "bq://lite.scores"}}
    wanted.append(("sqlite", lite, "bigquery"))
    if pg:
        into = {"bigqueryDestination": {"outputUri": "bq://pg.scores"}}
        wanted.append(("postgres", into, "bigquery"))
    hits, seen = 0, 0
    done = []
    share = [kills // len(wanted) + (i < kills % len(wanted)) for i in range(len(wanted))]
    for (name, destination, form), due in zip(wanted, share, strict=True):
        path = f"/v1/{LOCATION}/batchPredictionJobs"
        made = call(server, "POST", path, job(name, destination, form))
        state, until = {}, time.monotonic() + WAIT
        while not state.get("endTime"):
            if time.monotonic() > until:
                raise SystemExit(f"{name} did not end: {state}")
            time.sleep(dice.uniform(0.05, 0.3))
            alive = workers(folder)
            seen = max(seen, len(alive))
            if due and alive:
                due, hits = due - 1, hits + 1
                if dice.random() < 0.6:
                    victim = dice.choice(alive)
                    while not listens(victim) and victim in workers(folder):
                        time.sleep(0.01)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                else:
                    server.process.kill()
                    server.process.wait()
                    server = Server(folder, config)
            state = call(server, "GET", f"/v1/{made['name']}")
        if state["state"] != "JOB_STATE_SUCCEEDED":
            raise SystemExit(f"{name}: {state['state']}: {state.get('error')}")
        if int(state["completionStats"]["successfulCount"]) != ROWS:
            raise SystemExit(f"{name}: {state['completionStats']}")
        done.append(made["name"])
        check(server, folder, name, state, pg)
    if seen < 2:
        raise SystemExit(f"{seen} workers were seen at a time, and jobs asked for 2")
    if hits < kills:
        raise SystemExit(f"only {hits} of {kills} kills: the jobs were over before")
    until = time.monotonic() + WAIT
    while set(done) - set(Receiver.seen) and time.monotonic() < until:
        time.sleep(0.2)
    server.stop()
    return done


def check(server, folder, name, state, pg):
    if name == "files":
        import io

        import pyarrow.parquet

        directory = state["outputInfo"]["gcsOutputDirectory"]
        prefix = directory.removeprefix("gs://bkt/") + "/prediction.results"
        keys = []
        for item in call(server, "GET", f"/storage/v1/b/bkt/o?prefix={prefix.replace(' ', '%20')}")["items"]:
            table = pyarrow.parquet.read_table(io.BytesIO(server.request("GET", media(item["name"]))))
            keys += table["key"].to_pylist()
        unique(keys, name)
    elif name == "sqlite":
        with contextlib.closing(sqlite3.connect(folder / "w.db")) as db:
            unique((k for (k,) in db.execute("SELECT key FROM scores")), name)
    else:
        command = [pg[1] / "psql", "-h", pg[0], "-U", "tategu", "-d", "postgres"]
        command += ["-Atc", "SELECT key FROM scores"]
        out = subprocess.run(command, check=True, capture_output=True, text=True)
        unique((int(k) for k in out.stdout.split()), name)


if __name__ == "__main__":
    main()
