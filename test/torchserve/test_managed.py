"""TorchServe's management API of a deployed model: in every replica, through deaths of replicas and of the server."""

import concurrent.futures
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server

PYTHON = os.environ.get("TATEGU_TEST_TORCHSERVE", "")
# Answers how often its version goes into each instance, and who it is.
HANDLER = """
import os, time

class Handler:
    def initialize(self, context):
        self.initialized = True
        self.version = context.manifest["model"]["modelVersion"]

    def handle(self, data, context):
        context.metrics.add_counter("RowsSeen", len(data))
        time.sleep(0.02)  # so that others go elsewhere
        return [{"version": self.version, "instance": row, "parent": os.getppid()} for row in data]
"""


def archive(version: str, handler: str = HANDLER) -> bytes:
    """An archive of the same model."""
    manifest = {"runtime": "python", "model": {"modelName": "net", "handler": "handler.py", "modelVersion": version}}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        z.writestr("handler.py", handler)
    return data.getvalue()


# A node of a workflow gets and gives bytes, and the last function says who it is.
NODE = """
class Handler:
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        return [b"<" + bytes(row["body"]) + b">" for row in data]
"""
FUNCTIONS = """
import os, time

def before(data, context):
    return data and [bytes(row["body"]).upper() for row in data]

def after(data, context):
    time.sleep(0.05)  # so that others go elsewhere
    return data and [bytes(row["body"]) + b"! %d" % os.getppid() for row in data]
"""


def workflow(url: str) -> bytes:
    """An archive of a function, a model and a function."""
    manifest = {"runtime": "python", "workflow": {"workflowName": "flow", "specFile": "spec.yaml", "handler": "functions.py"}}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("WAR-INF/MANIFEST.json", json.dumps(manifest))
        z.writestr("functions.py", FUNCTIONS)
        z.writestr("spec.yaml", f'models:\n  part: {{url: "{url}"}}\ndag:\n  before: [part]\n  part: [after]\n')
    return data.getvalue()


class Deployed:
    """A model with two replicas on an endpoint of a server that can be killed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config = f"buckets: [models]\ntorchserve: {{python: {PYTHON}}}\n"
        self.server = Server(folder, self.config)

    def deploy(self) -> None:
        """Upload the archives, and deploy the first."""
        root = f"/v1/projects/{self.server.env()['GOOGLE_CLOUD_PROJECT']}/locations/us-central1"
        for name, version, handler in (("first/model.mar", "1.0", HANDLER), ("second.mar", "2.0", HANDLER), ("bad.mar", "3.0", "raise RuntimeError('no good')\n")):
            path = self.folder / Path(name).name
            path.write_bytes(archive(version, handler))
            self.server.command("cp", str(path), f"gs://models/{name}")
        model = {"displayName": "net", "artifactUri": "gs://models/first", "containerSpec": {"imageUri": "tategu/torchserve"}}
        model = self.done("POST", f"{root}/models:upload", {"model": model})["model"]
        self.endpoint = "/v1/" + self.done("POST", f"{root}/endpoints", {"displayName": "e"})["name"]
        resources = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 2, "maxReplicaCount": 2}
        deploy = {"deployedModel": {"model": model, "dedicatedResources": resources}, "trafficSplit": {"0": 100}}
        self.id = self.done("POST", f"{self.endpoint}:deployModel", deploy)["deployedModel"]["id"]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server, as its operator."""
        return json.loads(self.server.request(method, path, json.dumps(body).encode() if body is not None else None) or b"null")

    def done(self, method: str, path: str, body: Any) -> Any:
        """Run an operation to its end."""
        operation = self.call(method, path, body)
        end = time.monotonic() + 300
        while not operation.get("done"):
            assert time.monotonic() < end, operation
            operation = self.call("POST", f"/v1/{operation['name']}:wait", {})
        assert "error" not in operation, operation
        return operation["response"]

    def manage(self, method: str, path: str) -> tuple[int, Any]:
        """Ask TorchServe's management API of the deployed model."""
        try:
            return 200, json.loads(self.server.request(method, f"{self.endpoint}/deployedModels/{self.id}/torchserve{path}", type_="text/plain"))
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read())

    def answers(self) -> list[dict[str, Any]]:
        """What predictions say, of enough to see both replicas."""

        def one(n: int) -> dict[str, Any]:
            return self.call("POST", f"{self.endpoint}:predict", {"instances": [n]})["predictions"][0]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(pool.map(one, range(32)))

    def versions(self) -> tuple[set[str], int]:
        """Which versions answer, in how many replicas."""
        said = self.answers()
        return {a["version"] for a in said}, len({a["parent"] for a in said})

    def replicas(self) -> list[int]:
        """Processes of replicas."""
        found = []
        for pid in self.server._workloads():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if len(words) > 1 and words[1] == b"torch-replica":
                    found.append(pid)
        return found

    def wait_two(self, gone: set[int]) -> None:
        """Wait until two replicas other than some answer."""
        end = time.monotonic() + 180
        while time.monotonic() < end:
            running = set(self.replicas())
            with contextlib.suppress(urllib.error.HTTPError):
                if len(running) == 2 and not running & gone and self.versions()[1] == 2:
                    return
            time.sleep(0.5)
        raise AssertionError(f"two replicas do not come: {(self.folder / 'server.log').read_text()[-3000:]}")

    def killed(self) -> None:
        """Kill the server, whose replicas go on, and start it again."""
        self.server.process.kill()
        self.server.process.wait()
        self.server = Server(self.folder, self.config)


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    """The model."""
    if not PYTHON:
        pytest.skip("TATEGU_TEST_TORCHSERVE names no Python with torchserve")
    probe = subprocess.run([PYTHON, "-c", "import torch, ts"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"torch is not installed: {probe.stderr.strip().rsplit(chr(10), 1)[-1]}")
    d = Deployed(tmp_path)
    try:
        d.deploy()
        yield d
    finally:
        d.server.stop()


def test_managed(deployed: Deployed) -> None:
    """Registered, made the default and scaled in place; a replica and the server die; then all is as it was told."""
    d = deployed
    status, models = d.manage("GET", "/models")
    assert (status, [m["modelName"] for m in models["models"]]) == (200, ["model"])
    assert d.versions() == ({"1.0"}, 2)
    status, said = d.manage("POST", "/models?url=gs://models/bad.mar&model_name=model&initial_workers=1&synchronous=true")
    assert status >= 400, said
    assert "no good" in said["message"]
    status, said = d.manage("POST", "/models?url=gs://models/second.mar&model_name=model&initial_workers=1&synchronous=true")
    assert (status, said["status"]) == (200, 'Model "model" Version: 2.0 registered with 1 initial workers')
    assert d.versions() == ({"1.0"}, 2)
    metrics = d.server.request("GET", f"{d.endpoint}/deployedModels/{d.id}/torchserve/metrics?name[]=RowsSeen&name[]=ts_inference_requests_total").decode()
    for n in "01":
        assert f'\nRowsSeen{{tategu_replica="{n}",ModelName="model",Level="Model",' in metrics, metrics
        assert f'\nts_inference_requests_total{{tategu_replica="{n}",model_name="model",' in metrics, metrics
    assert metrics.count("# TYPE RowsSeen counter") == 1
    assert d.manage("PUT", "/models/model/2.0/set-default")[0] == 200
    assert d.versions() == ({"2.0"}, 2)
    assert d.manage("PUT", "/models/model/2.0?min_worker=2&max_worker=2&synchronous=true")[0] == 200
    before = set(d.replicas())
    assert len(before) == 2
    os.kill(next(iter(before)), signal.SIGKILL)
    d.wait_two({next(iter(before))})
    assert d.versions() == ({"2.0"}, 2)
    running = set(d.replicas())
    d.killed()
    d.wait_two(set())
    assert set(d.replicas()) == running
    assert d.versions() == ({"2.0"}, 2)
    for _ in range(4):  # whichever replica answers
        status, described = d.manage("GET", "/models/model/all")
        assert {m["modelVersion"]: (m["minWorkers"], len(m["workers"])) for m in described}["2.0"] == (2, 2)
    assert d.manage("DELETE", "/models/model/1.0")[0] == 200
    assert [m["modelVersion"] for m in d.manage("GET", "/models/model/all")[1]] == ["2.0"]
    status, said = d.manage("DELETE", "/models/model")
    assert status == 403
    assert "undeploy" in said["message"]
    for pid in d.replicas():
        os.kill(pid, signal.SIGKILL)
    d.wait_two(running)
    assert d.versions() == ({"2.0"}, 2)
    assert [m["modelVersion"] for m in d.manage("GET", "/models/model/all")[1]] == ["2.0"]


def test_workflow(deployed: Deployed) -> None:
    """A workflow is registered in place: each replica has it, also after deaths of them and of the server."""
    d = deployed
    for name, data in (("part.mar", archive("1.0", NODE)), ("flow.war", workflow("gs://models/part.mar"))):
        (d.folder / name).write_bytes(data)
        d.server.command("cp", str(d.folder / name), f"gs://models/{name}")

    def run(text: bytes) -> list[bytes]:
        """What both replicas answer."""

        def one(_: int) -> bytes:
            return d.server.request("POST", f"{d.endpoint}/invoke/wfpredict/shout", text, type_="application/octet-stream")

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(pool.map(one, range(24)))

    def in_both() -> None:
        said = [answer.split(b" ") for answer in run(b"hello")]
        assert {s[0] for s in said} == {b"<HELLO>!"}
        assert len({s[1] for s in said}) == 2, said

    status, said = d.manage("POST", "/workflows?url=gs://models/none.war")
    assert status == 404, said
    status, said = d.manage("POST", "/workflows?url=gs://models/flow.war&workflow_name=shout")
    assert (status, said["status"]) == (200, "Workflow shout has been registered and scaled successfully.")
    in_both()
    assert d.versions() == ({"1.0"}, 2)
    assert d.manage("PUT", "/models/shout__part?min_worker=2&max_worker=2&synchronous=true")[0] == 200
    before = set(d.replicas())
    os.kill(next(iter(before)), signal.SIGKILL)
    d.wait_two({next(iter(before))})
    in_both()
    running = set(d.replicas())
    d.killed()
    d.wait_two(set())
    assert set(d.replicas()) == running
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    d.wait_two(running)
    in_both()
    for _ in range(4):  # whichever replica answers
        assert d.manage("GET", "/workflows") == (200, {"workflows": [{"workflowName": "shout", "workflowUrl": "gs://models/flow.war"}]})
        (part,) = d.manage("GET", "/models/shout__part/all")[1]
        assert len(part["workers"]) == 2
    assert d.manage("GET", "/workflows/shout")[1][0]["workflowDag"] == "{before=[part], part=[after]}"
    assert d.manage("DELETE", "/models/shout__part")[0] == 409
    assert d.manage("GET", "/token?type=inference")[0] == 501
    assert d.manage("DELETE", "/workflows/shout")[0] == 200
    for _ in range(4):
        assert d.manage("GET", "/workflows") == (200, {"workflows": []})
        with pytest.raises(urllib.error.HTTPError, match="404"):
            run(b"hello")
    assert d.versions() == ({"1.0"}, 2)
