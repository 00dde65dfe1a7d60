"""Batch prediction whose workers read the objects by themselves: lines and damage."""

import json
import time

import pytest

from server import Server

JOBS = "/v1/projects/p/locations/us-central1/batchPredictionJobs"
ROWS = 60_000  # of 400 bytes: several sections
PAD = " " * 360


@pytest.fixture(scope="module")
def own(tmp_path_factory, lightgbm_model):
    """A server with a model of files."""
    folder = tmp_path_factory.mktemp("batch-files")
    with Server(folder, "buckets: [files]\nproject: p\n") as server:
        server.put("files", "m/model.txt", (lightgbm_model[0] / "model.txt").read_bytes())
        body = {"model": {"displayName": "m", "artifactUri": "gs://files/m"}, "modelId": "m"}
        path = "/v1/projects/p/locations/us-central1/models:upload"
        server.request("POST", path, json.dumps(body).encode())
        yield server


def finished(server, name):
    """The job once it has ended."""
    while not (job := json.loads(server.request("GET", f"/v1/{name}"))).get("endTime"):
        time.sleep(0.02)
    return job


def run(server, *uris):
    """A job from lines to lines."""
    body = {
        "displayName": "j",
        "model": "projects/p/locations/us-central1/models/m",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": list(uris)}},
        "outputConfig": {
            "predictionsFormat": "jsonl",
            "gcsDestination": {"outputUriPrefix": "gs://files/out"},
        },
    }
    made = json.loads(server.request("POST", JOBS, json.dumps(body).encode()))
    return finished(server, made["name"])


def content(server, marker):
    """The file that has an object's bytes."""
    for path in (server.data / "objects").rglob("*"):
        if path.is_file() and marker in path.read_bytes()[:1000]:
            return path
    raise AssertionError("no such content")


def test_lines_and_damage(own, lightgbm_model):
    """Each row comes out once, bad ones with their line; damage ends the job."""
    width = len(lightgbm_model[1][0])
    bad = {3, ROWS // 2, ROWS - 1}
    rows = [json.dumps([n] + [0.5] * (width - 1)) + PAD for n in range(ROWS)]
    for n in bad:
        rows[n] = "{" + PAD
    text = "\n".join(rows).encode()
    own.put("files", "in.jsonl", text)
    own.put("files", "few.jsonl", b"\n".join(text.split(b"\n")[:5]))
    job = run(own, "gs://files/in.jsonl", "gs://files/few.jsonl")
    stats = job["completionStats"]
    assert int(stats["successfulCount"]) == ROWS - len(bad) + 4, job
    folder = job["outputInfo"]["gcsOutputDirectory"]
    seen, failed = set(), set()
    names = own.command("ls", folder + "/").split()
    for name in names:
        lines = own.command("cat", name).splitlines()
        for line in map(json.loads, lines):
            if "error" in line:
                failed.add((line["source"]["uri"], line["source"]["line"]))
            else:
                seen.add(line["instance"][0])
    assert len([n for n in names if "results" in n]) > 1, names
    assert seen == set(range(ROWS)) - bad
    want = {("gs://files/in.jsonl", n + 1) for n in bad}
    assert failed == want | {("gs://files/few.jsonl", 4)}

    file = content(own, text[:500])
    with open(file, "r+b") as f:
        f.seek(len(text) // 2)
        was = f.read(1)
        f.seek(len(text) // 2)
        f.write(b"\t" if was == b" " else b" ")
    job = run(own, "gs://files/in.jsonl")
    assert job["state"] == "JOB_STATE_FAILED", job
    assert "damaged" in job["error"]["message"], job["error"]
