"""Runs compiled pipelines against a fresh server, and compares how they end.

    python pipelines.py --dir FOLDER [--only "a.yaml b.yaml"]

FOLDER holds IR files and expected.tsv, whose lines are FILE<TAB>STATE. Required
inputs get a fixed value for each type, images are mapped to programs of this
machine, one GPU is declared, and objects that importers name are seeded. Where
kfp.local can run a pipeline too, every output parameter is compared with what it
gives; its answers are kept in bin/ between runs.
The last line is `N passed, N failed`.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from server import ROOT, Server, clean_env

LOCATION = "projects/p/locations/us-central1"
JOBS = f"/v1/{LOCATION}/pipelineJobs"
ARTIFACTS = f"/v1/{LOCATION}/metadataStores/default/artifacts"
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "PAUSED")

# A required input has nothing but its type. PATH is a word like any other, and
# the name of a variable that every program has.
VALUES: dict[str, Any] = {
    "STRING": "PATH",
    "NUMBER_INTEGER": 3,
    "NUMBER_DOUBLE": 2.5,
    "BOOLEAN": True,
    "LIST": ["a", "b"],
    "STRUCT": {"key": "value"},
}
OLD_TYPES = {"STRING": "STRING", "INT": "NUMBER_INTEGER", "DOUBLE": "NUMBER_DOUBLE"}

# Images are programs of this machine: Python ones an environment, others its
# commands.
CONFIG = """
images:
  - {match: "*python*", python: "3.11", "python.match": any}
  - {match: "alpine*", command: [env]}
  - {match: "busybox*", command: [env]}
  - {match: "debian*", command: [env]}
  - {match: "ubuntu*", command: [env]}
  - {match: "*bash*", command: [env]}
  - {match: "*/jq", command: [env]}
"""
RESOURCES = "resources: {cores: 8, gpus: 1}\n"

# Secrets that a Kubeflow test cluster has (names may come from tasks, so they
# cannot be read from the IR).
SECRETS = ("test-secret-1", "test-secret-2", "test-secret-3")


@dataclass
class Case:
    """One pipeline of the folder."""

    file: str
    path: Path
    want: str
    ir: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    refused: str = ""

    @property
    def id(self) -> str:
        """The id of its run."""
        return re.sub(r"[^a-z0-9-]+", "-", self.file.lower())[:100]

    @property
    def state(self) -> str:
        """How the run ended."""
        return str(self.job.get("state", "")).removeprefix("PIPELINE_STATE_")


def read(path: Path) -> dict[str, Any]:
    """One JSON object of the documents of a file: the second has the platforms."""
    documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
    ir: dict[str, Any] = documents[0].get("pipelineSpec", documents[0])
    for other in documents[1:]:
        ir["platforms"] = other["platforms"]
    return ir


def load(folder: Path, only: list[str]) -> list[Case]:
    """Cases of expected.tsv; a name that is not there is an error."""
    cases = []
    for line in (folder / "expected.tsv").read_text().splitlines():
        fields = line.split("\t")
        if line.startswith("#") or len(fields) < 2:
            continue
        if not only or fields[0] in only:
            cases.append(Case(fields[0], folder / fields[0], fields[1].strip()))
    if missing := set(only) - {c.file for c in cases}:
        raise SystemExit(f"{folder} has no {', '.join(sorted(missing))}")
    return cases


# Stands for a folder of the run: what one run left there is not another's.
FOLDER = "@FOLDER@"


def fill(c: Case) -> dict[str, Any]:
    """Give every required parameter a value: by its type, paths by their name."""
    values = {}
    definitions = c.ir["root"].get("inputDefinitions", {})
    for name, p in definitions.get("parameters", {}).items():
        if "defaultValue" in p or p.get("isOptional"):
            continue
        kind = p.get("parameterType") or OLD_TYPES[p["type"]]
        values[name] = VALUES.get(kind, VALUES["STRUCT"])
        if kind == "STRING" and name.endswith("path"):
            values[name] = f"{FOLDER}/{c.id}-{name}"
    return values


def strings(value: Any) -> list[str]:
    """Give every string in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return (
        [s for v in value for s in strings(v)] if isinstance(value, list) else []
    )


def at(inputs: dict[str, Any], folder: str) -> dict[str, Any]:
    """Put a folder where the inputs name one."""
    return {
        k: v.replace(FOLDER, folder) if isinstance(v, str) else v
        for k, v in inputs.items()
    }


def seed(server: Server, cases: list[Case]) -> None:
    """Put objects where importers look: their constants, and inputs' defaults."""
    uris: set[str] = set()
    for c in cases:
        executors = c.ir.get("deploymentSpec", {}).get("executors", {})
        importers = [e["importer"] for e in executors.values() if "importer" in e]
        if importers:
            inputs = c.ir["root"].get("inputDefinitions", {})
            uris.update(u for u in strings([importers, inputs]) if "gs://" in u)
    names = {u.removeprefix("gs://") for u in uris if u.startswith("gs://")}
    for bucket in sorted({n.split("/")[0] for n in names} | {"inputs"}):
        server.make_bucket("p", bucket)
    for name in sorted(names):
        bucket, _, path = name.partition("/")
        server.put(bucket, path, b"to be, or not to be\n")
    server.put("inputs", "data", b"to be, or not to be\n")


def artifacts(server: Server, c: Case) -> dict[str, Any]:
    """Make an artifact for every one that a pipeline requires."""
    given = {}
    definitions = c.ir["root"].get("inputDefinitions", {})
    for i, (name, a) in enumerate(definitions.get("artifacts", {}).items()):
        if a.get("isOptional"):
            continue
        body = {
            "uri": "gs://inputs/data",
            "schemaTitle": a["artifactType"].get("schemaTitle", "system.Artifact"),
            "schemaVersion": "0.0.1",
        }
        made = f"{c.id}-{i}"
        post(server, f"{ARTIFACTS}?artifactId={made}", body)
        given[name] = {"artifactId": made}
    return given


def post(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send JSON and read JSON."""
    answer: dict[str, Any] = json.loads(
        server.request("POST", path, json.dumps(body).encode())
    )
    return answer


def submit(server: Server, c: Case, folder: Path) -> None:
    """Create the run; what the server says when it refuses is kept."""
    config = {
        "gcsOutputDirectory": "gs://conformance-kfp/root",
        "parameterValues": at(c.inputs, str(folder)),
    }
    try:
        config["inputArtifacts"] = artifacts(server, c)
        body = {"displayName": c.id, "pipelineSpec": c.ir, "runtimeConfig": config}
        c.job = post(server, f"{JOBS}?pipelineJobId={c.id}", body)
    except urllib.error.HTTPError as e:
        c.refused = json.loads(e.read())["error"]["message"]


def await_all(server: Server, cases: list[Case], seconds: float) -> None:
    """Wait for the end of every run."""
    deadline = time.monotonic() + seconds
    waiting = [c for c in cases if not c.refused]
    while waiting and time.monotonic() < deadline:
        for c in waiting:
            c.job = json.loads(server.request("GET", f"{JOBS}/{c.id}"))
        waiting = [c for c in waiting if c.state not in ENDED]
        time.sleep(0.2)


def outputs(c: Case) -> dict[str, Any]:
    """Output parameters of a run, as its root task shows them."""
    details = c.job["jobDetail"]["taskDetails"]
    root = next(t for t in details if not int(t.get("parentTaskId", 0)))
    metadata = root["execution"].get("metadata", {})
    prefix = "output:"
    return {
        k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)
    }


def reference(c: Case, cache: Path, seconds: float) -> dict[str, Any] | None:
    """Output parameters by kfp.local; None where it cannot run the pipeline."""
    from kfp import __version__

    key = c.path.read_bytes() + json.dumps(c.inputs, sort_keys=True).encode()
    key += (HERE / "kfplocal.py").read_bytes() + __version__.encode()
    kept = cache / f"{hashlib.sha256(key).hexdigest()}.json"
    if not kept.exists():
        command = [sys.executable, str(HERE / "kfplocal.py"), str(c.path)]
        try:
            done = subprocess.run(
                [*command, json.dumps(c.inputs)],
                check=False,
                capture_output=True,
                text=True,
                timeout=seconds,
                env=clean_env(),
            )
            text = done.stdout
        except subprocess.TimeoutExpired:
            text = ""
        mark = "outputs: "  # kfp.local says more before and after it
        lines = [x for x in text.splitlines() if x.startswith(mark)]
        answer = lines[-1].removeprefix(mark) if lines else "null"
        if answer == "null":
            return None  # asked again next time: it may have run out of time
        cache.mkdir(parents=True, exist_ok=True)
        kept.write_text(answer)
    value: dict[str, Any] = json.loads(kept.read_text())
    return value


def same(ours: Any, theirs: Any) -> bool:
    """Compare values: a number is itself whatever its type, a list by its items."""
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


def judge(c: Case, cache: Path, seconds: float) -> tuple[str, str]:
    """Give what is wrong with a run, or nothing, and what it was compared with."""
    if c.refused:
        return f"refused: {c.refused}", ""
    if c.state != c.want:
        message = c.job.get("error", {}).get("message", "")
        return f"{c.state}, want {c.want}: {message}", ""
    declared = c.ir["root"].get("outputDefinitions", {}).get("parameters", {})
    if c.state != "SUCCEEDED" or not declared:
        return "", ""
    theirs = reference(c, cache, seconds)
    if theirs is None:
        return "", "kfp.local cannot run it"
    ours = outputs(c)
    for name, value in theirs.items():
        if not same(ours.get(name), value):
            return f"output {name} is {ours.get(name)!r}, kfp.local: {value!r}", ""
    return "", f"{len(theirs)} outputs as kfp.local"


def main() -> int:
    """Run the pipelines and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--only", default="", help="names as in expected.tsv")
    parser.add_argument("--timeout", type=float, default=1500, help="for all runs")
    options = parser.parse_args()
    cases = load(options.dir.resolve(), options.only.split())
    failed = 0
    with tempfile.TemporaryDirectory(prefix="conformance-kfp-") as scratch:
        folder = Path(scratch)
        inputs = folder / "inputs"
        inputs.mkdir()
        for c in cases:
            c.ir = read(c.path)
            c.inputs = fill(c)
        for name in SECRETS:
            (folder / "secrets" / "p" / name).mkdir(parents=True)
            for key in ("username", "password"):
                (folder / "secrets" / "p" / name / key).write_text(f"{key} of {name}")
        config = CONFIG + RESOURCES + f"secrets: {folder}/secrets\n"
        with Server(folder, config) as server:
            seed(server, cases)
            for c in cases:
                submit(server, c, inputs)
            await_all(server, cases, options.timeout)
        for c in cases:
            wrong, note = judge(c, ROOT / "bin" / "conformance-kfp", 300)
            failed += bool(wrong)
            verdict = "FAIL" if wrong else "ok"
            print(f"{verdict:5}{c.file}  {wrong or note}".rstrip(), flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed", flush=True)
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
