"""The README of examples/drawing-classifier: trained, archived, served from gs://."""

import concurrent.futures
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import ROOT, Server, binary, clean_env, free_ports

EXAMPLE = ROOT / "examples" / "drawing-classifier"
PYTHON = os.environ.get("TATEGU_TEST_TORCHSERVE", "")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and archive, with the commands of the README."""
    if not PYTHON:
        pytest.skip("TATEGU_TEST_TORCHSERVE names no Python with torchserve")
    probe = subprocess.run([PYTHON, "-c", "import torch, ts, sklearn"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"torch is not installed: {probe.stderr.strip().rsplit(chr(10), 1)[-1]}")
    out = tmp_path_factory.mktemp("out")
    env = clean_env() | {"PYTHONDONTWRITEBYTECODE": "1"}
    trained = subprocess.run([PYTHON, "train.py", out], cwd=EXAMPLE, env=env, capture_output=True, text=True, check=True)
    assert float(trained.stdout.split("=")[1]) > 0.95
    command = [Path(PYTHON).parent / "torch-model-archiver", "--model-name", "digits", "--version", "1.0"]
    command += ["--model-file", "network.py", "--serialized-file", out / "digits.pt", "--handler", "handler.py"]
    command += ["--config-file", "model-config.yaml", "--export-path", out]
    subprocess.run(command, cwd=EXAMPLE, env=env, check=True)
    return out


class TorchServe:
    """`tategu torchserve` beside a server whose storage has the archive."""

    def __init__(self, folder: Path, archive: Path):
        self.folder = folder
        self.ports = free_ports(5)
        (folder / "store").mkdir()
        (folder / "tmp").mkdir()
        names = ("inference_address", "management_address", "metrics_address")
        lines = [f"{n}=http://127.0.0.1:{p}" for n, p in zip(names, self.ports, strict=False)]
        lines += [f"grpc_inference_port={self.ports[3]}", f"grpc_management_port={self.ports[4]}", "metrics_mode=prometheus"]
        (folder / "config.properties").write_text("\n".join(lines) + "\n")
        self.server = Server(folder, config="buckets: [models]\n")
        self.env = clean_env() | {"TATEGU_DATA": str(self.server.data), "TMPDIR": str(folder / "tmp")}
        self.tategu("cp", str(archive / "digits.mar"), "gs://models/digits.mar")
        self.tategu("torchserve", "--start", "--model-store", "store", "--models", "digits=gs://models/digits.mar",
                    "--disable-token-auth", "--python", PYTHON)  # fmt: skip

    def tategu(self, *args: str) -> str:
        """Run a command."""
        run = subprocess.run([binary(), *args], cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def ask(self, api: int, path: str, body: str | None = None) -> bytes:
        """Ask one of the APIs."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[api]}{path}", headers={"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, body.encode() if body else None, timeout=120) as answer:
            return answer.read()

    def close(self) -> None:
        """End both."""
        assert self.tategu("torchserve", "--stop") == "TorchServe has stopped.\n"
        self.server.stop()


@pytest.fixture
def served(archive: Path, tmp_path: Path) -> Iterator[TorchServe]:
    """A server with the model."""
    t = TorchServe(tmp_path, archive)
    yield t
    t.close()


def test_drawings(archive: Path, served: TorchServe) -> None:
    """Every drawing, all at once: the answers are those of the network, in batches."""
    rows = [json.loads(line) for line in (archive / "test.jsonl").read_text().splitlines()]
    bodies = [json.dumps({"drawing": r["drawing"]}) for r in rows]
    first = json.loads(served.ask(0, "/predictions/digits", bodies[0]))
    assert first["digit"] == rows[0]["digit"]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda b: json.loads(served.ask(0, "/predictions/digits", b)), bodies))
    right = sum(a["digit"] == r["digit"] for a, r in zip(answers, rows, strict=True))
    assert right > 0.95 * len(rows)
    explained = json.loads(served.ask(0, "/explanations/digits", bodies[0]))
    assert explained["digit"] == first["digit"]
    assert [len(row) for row in explained["pixels"]] == [8] * 8
    model = json.loads(served.ask(1, "/models/digits"))[0]
    assert (model["modelUrl"], model["batchSize"], model["workers"][0]["status"]) == ("gs://models/digits.mar", 16, "READY")
    metrics = served.ask(2, "/metrics").decode()
    assert 'model_name="digits",model_version="default"' in metrics


def test_deployed(archive: Path, tmp_path: Path) -> None:
    """The archive on an endpoint: predicted, explained and predicted in a batch, by the program of the example."""
    with Server(tmp_path, config=f"buckets: [models]\ntorchserve: {{python: {PYTHON}}}\n") as server:
        server.command("cp", str(archive / "digits.mar"), str(archive / "test.jsonl"), "gs://models/digits/")
        command = [sys.executable, EXAMPLE / "deploy.py", "models"]
        run = subprocess.run(command, env=server.env("--intercept"), capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr + server.log.read_text()[-3000:]
    said = {head: rest.strip() for head, _, rest in (line.partition(" ") for line in run.stdout.splitlines())}  # among what the SDK says
    assert said["predicted"] == said["wanted"]
    assert said["explained"].startswith(said["wanted"].strip("[]").split(",")[0] + ": most by the pixel in row ")
    right, of = said["batch"].split(" of ")
    assert int(right) > 0.95 * int(of.split()[0]) > 300
