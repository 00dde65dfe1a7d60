"""Runs the clients of other languages against a fresh server: storage, predictions of
a LightGBM model at an endpoint, and the life of an index.

A client whose toolchain is missing is skipped and says so; the last line counts all checks.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server

HERE = Path(__file__).resolve().parent
# Name: the tools it needs, how it is installed, how it is run, flags of `tategu env`.
CLIENTS = [
    ("go", ["go"], [], ["go", "run", "."], []),
    ("go", ["go"], [], ["go", "run", "./predict"], []),
    ("go", ["go"], [], ["go", "run", "./vector"], []),
    ("rust", ["cargo"], ["cargo", "build", "--quiet", "--locked"], ["cargo", "run", "--quiet", "--locked", "--offline", "--"], []),
    ("node", ["node", "npm"], ["npm", "ci", "--no-audit", "--no-fund", "--silent"], ["node", "probe.js"], []),
    ("node", ["node", "npm"], [], ["node", "probe.js"], ["--intercept"]),
    (
        "java",
        ["java", "mvn"],
        ["mvn", "-q", "-B", "compile", "dependency:build-classpath", "-Dmdep.outputFile=target/classpath"],
        ["sh", "-c", 'exec java -cp "target/classes:$(cat target/classpath)" probe.Probe'],
        [],
    ),
]
# Cargo builds here: two minutes of a core, half a gigabyte.
TARGET = {"CARGO_TARGET_DIR": str(HERE.parent.parent / ".venv" / "rust-aiplatform")}


def call(server: Server, method: str, path: str, body: object = None) -> dict:
    """One REST request; a long-running operation is waited for."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://{server.address}{path}", data, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    if "/operations/" in found.get("name", "") and not found.get("done"):
        time.sleep(0.1)
        return call(server, "GET", "/v1/" + found["name"])
    return found


def endpoint(server: Server) -> list[str]:
    """An endpoint with a LightGBM model: its name, instances, and their predictions."""
    golden = HERE.parent.parent / "internal" / "modelformat" / "lightgbm" / "testdata" / "golden"
    server.make_bucket("p", "models")
    server.put("models", "m/model.txt", (golden / "regression.model.txt").read_bytes())
    rows, want = (
        [[float.fromhex(v) for v in line.split()] for line in (golden / name).read_text().splitlines()[1:9]]
        for name in ("rows.txt", "regression.out.txt")
    )
    place = "/v1/projects/p/locations/us-central1"
    model = {"displayName": "m", "artifactUri": "gs://models/m", "containerSpec": {"imageUri": "tategu/lightgbm"}}
    uploaded = call(server, "POST", f"{place}/models:upload", {"model": model})["response"]["model"]
    name = call(server, "POST", f"{place}/endpoints", {"displayName": "e"})["response"]["name"]
    deployed = {"model": uploaded, "dedicatedResources": {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1}}
    call(server, "POST", f"/v1/{name}:deployModel", {"deployedModel": deployed, "trafficSplit": {"0": 100}})
    rows = [[None if v != v else v for v in row] for row in rows]  # NaN is missing
    return [name, json.dumps(rows), json.dumps([v for (v,) in want])]


def main() -> int:
    """Start a server, drive it with each client, and add up."""
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="tategu-otherclients-") as folder:
        server = Server(Path(folder))
        try:
            served = endpoint(server)
            for name, tools, install, run, flags in CLIENTS:
                missing = [t for t in tools if not shutil.which(t)]
                if missing:
                    print(f"skip  {name}: {' and '.join(missing)} not installed")
                    continue
                where = HERE / name
                if install:
                    subprocess.run(install, cwd=where, env=os.environ | TARGET, check=True, timeout=1800)
                predicts = "./predict" in run or name == "rust"
                done = subprocess.run(
                    [*run, f"http://{server.address}", *(served if predicts else [])], cwd=where, env=server.env(*flags) | TARGET,
                    stdout=subprocess.PIPE, text=True, timeout=600, check=False,
                )  # fmt: skip
                counts = re.search(r"(\d+) passed, (\d+) failed\s*$", done.stdout)
                print(done.stdout[: counts.start()] if counts else done.stdout, end="")
                passed += int(counts[1]) if counts else 0
                failed += int(counts[2]) if counts else 1
        finally:
            server.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
