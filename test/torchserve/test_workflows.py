"""Workflows of `tategu torchserve` through `kill -9`, `--stop` and a start by the stock TorchServe, with the stock workers."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import binary, clean_env, free_ports

PYTHON = os.environ.get("TATEGU_TEST_TORCHSERVE", "")
MODEL = """
class Handler:
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        return [b"<" + bytes(row.get("body") or row.get("data")) + b">" for row in data]
"""
FUNCTIONS = """
def before(data, context):
    return data and [bytes(row.get("body") or row.get("data")).upper() for row in data]

def after(data, context):
    return data and [bytes(row.get("body") or row.get("data")) + b"!" for row in data]
"""
SPEC = """
models:
    min-workers: 1
    m:
        url: m.mar
dag:
    before: [m]
    m: [after]
"""


def packed(path: Path, files: dict[str, str]) -> None:
    """An archive."""
    with zipfile.ZipFile(path, "w") as z:
        for name, text in files.items():
            z.writestr(name, text)


class Torchserve:
    """A server that the command line starts and ends, in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.store = folder / "store"
        for d in (self.store, folder / "tmp"):
            d.mkdir()
        manifest = {"runtime": "python", "model": {"modelName": "m", "handler": "handler.py", "modelVersion": "1.0"}}
        packed(self.store / "m.mar", {"MAR-INF/MANIFEST.json": json.dumps(manifest), "handler.py": MODEL})
        manifest = {"runtime": "python", "workflow": {"workflowName": "w", "specFile": "spec.yaml", "handler": "functions.py"}}
        packed(self.store / "w.war", {"WAR-INF/MANIFEST.json": json.dumps(manifest), "spec.yaml": SPEC, "functions.py": FUNCTIONS})
        self.ports = free_ports(5)
        lines = [f"{n}_address=http://127.0.0.1:{p}" for n, p in zip(("inference", "management", "metrics"), self.ports, strict=False)]
        lines += [f"grpc_inference_port={self.ports[3]}", f"grpc_management_port={self.ports[4]}"]
        lines += ["disable_token_authorization=true", "enable_model_api=true", "disable_system_metrics=true"]
        (folder / "config.properties").write_text("\n".join(lines) + "\n")
        self.env = clean_env() | {
            "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}",
            "TMPDIR": str(folder / "tmp"),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, *words: str) -> None:
        """Run the command line."""
        done = subprocess.run([binary(), "torchserve", *words], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.log()}"

    def start(self) -> None:
        """Start as somebody does who names no configuration: with the last snapshot, where there is one."""
        self.command("--start", "--model-store", str(self.store), "--python", PYTHON)

    def log(self) -> str:
        """The end of the server's log."""
        path = self.folder / "logs/ts_log.log"
        return path.read_text()[-3000:] if path.exists() else ""

    def pid(self) -> int:
        """The server's process, 0 without one."""
        path = self.folder / "tmp/.model_server.pid"
        return int(path.read_text().strip() or 0) if path.exists() else 0

    def kill(self) -> None:
        """End the server as a power cut does."""
        os.kill(self.pid(), signal.SIGKILL)
        self.gone()

    def gone(self) -> None:
        """Wait until nobody listens any more."""
        end = time.monotonic() + 60
        for port in self.ports:
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < end:
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    time.sleep(0.05)
                raise AssertionError(f"port {port} is still listened on")

    def ask(self, port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=120)) as connection:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def manage(self, method: str, path: str) -> Any:
        """Ask the management API, which must do it."""
        status, body = self.ask(1, method, path)
        assert status == 200, f"{method} {path}: {status} {body.decode()}\n{self.log()}"
        return json.loads(body)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Torchserve]:
    """A server that does not run yet."""
    if not PYTHON:
        pytest.skip("TATEGU_TEST_TORCHSERVE names no Python with torchserve")
    probe = subprocess.run([PYTHON, "-c", "import torch, ts"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"torch is not installed: {probe.stderr.strip().rsplit(chr(10), 1)[-1]}")
    s = Torchserve(tmp_path)
    try:
        yield s
    finally:
        if s.pid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(s.pid(), signal.SIGTERM)
                s.command("--stop")


def snapshot(s: Torchserve) -> Path:
    """The last snapshot."""
    return max((s.folder / "logs/config").glob("*.cfg"), key=lambda p: p.stat().st_mtime_ns)


def test_workflows_survive(server: Torchserve) -> None:
    """What was acknowledged is there again, once, after each end; what was removed is not."""
    s = server
    s.start()
    s.manage("POST", "/models?url=m.mar&initial_workers=1&synchronous=true")
    said = s.manage("POST", "/workflows?url=w.war&workflow_name=shout")
    assert said == {"status": "Workflow shout has been registered and scaled successfully."}

    def whole() -> None:
        assert s.manage("GET", "/workflows") == {"workflows": [{"workflowName": "shout", "workflowUrl": "w.war"}]}
        assert s.manage("GET", "/models") == {"models": [{"modelName": "m", "modelUrl": "m.mar"}]}
        for node in ("before", "m", "after"):
            (described,) = s.manage("GET", f"/models/shout__{node}/all")
            assert len(described["workers"]) == 1, described
        assert s.ask(0, "POST", "/wfpredict/shout", b"hello") == (200, b"<HELLO>!"), s.log()
        assert s.ask(0, "POST", "/predictions/m", b"x") == (200, b"<x>")

    whole()
    s.kill()
    s.start()
    whole()
    s.command("--stop")
    s.start()
    whole()
    described = s.manage("GET", "/workflows/shout")
    assert described[0]["workflowDag"] == "{before=[m], m=[after]}"
    if shutil.which("java"):
        s.kill()
        stock(s)
        s.start()
        whole()
    s.manage("DELETE", "/workflows/shout")
    s.kill()
    s.start()
    assert s.manage("GET", "/workflows") == {"workflows": []}
    assert s.ask(0, "POST", "/wfpredict/shout", b"hello")[0] == 404
    assert s.ask(0, "POST", "/predictions/m", b"x") == (200, b"<x>")


def stock(s: Torchserve) -> None:
    """The stock TorchServe starts from the same snapshot, of which it knows the models."""
    copy = s.folder / "stock"
    copy.mkdir()
    shutil.copy(snapshot(s), copy / "snapshot.cfg")
    assert "shout" in (copy / "snapshot.cfg").read_text()
    (copy / "tmp").mkdir()
    command = [PYTHON, str(Path(PYTHON).parent / "torchserve"), "--start", "--foreground", "--ts-config", "snapshot.cfg"]
    with open(copy / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=copy, env=s.env | {"TMPDIR": str(copy / "tmp")}, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 180
        while True:
            assert process.poll() is None and time.monotonic() < end, (copy / "log").read_text()[-3000:]
            with contextlib.suppress(OSError):
                status, body = s.ask(0, "POST", "/predictions/m", b"x")
                if status == 200:
                    break
            time.sleep(0.3)
        assert body == b"<x>"
        assert s.manage("GET", "/models") == {"models": [{"modelName": "m", "modelUrl": "m.mar"}]}
        assert s.manage("GET", "/workflows") == {"workflows": []}
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        s.gone()
