"""Programs on a real GPU: what they see, and who waits.

Run by `make test-gpu` on a machine with an NVIDIA GPU. PYTHON is one that has torch
with CUDA; its packages are lent to the server's environments by a wheel that holds
one .pth file, so nothing is downloaded. The last line says what passed.
"""

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from server import Server, binary, clean_env

LENT = "torchlent"

# Arithmetic of whole numbers, the same on every device.
PRODUCT = """
import sys
import torch
a = (torch.arange(250000, dtype=torch.float64, device="cuda") % 7).reshape(500, 500)
print("sum", int((a @ a).sum().item()), torch.cuda.device_count(), torch.cuda.get_device_name(0).replace(" ", "_"))
"""
BLIND = "import torch\nprint('cuda', torch.cuda.is_available())\n"
# Says when it has the GPU and gives it up.
HOLD = """
import time
import torch
a = torch.ones(1 << 20, device="cuda")
f = open("{log}", "a", buffering=1)
f.write("begin\\n")
time.sleep(0.5)
f.write("end\\n")
"""


def wheel(folder: Path) -> Path:
    """A package that lends the packages of this Python."""
    import torch

    site = Path(torch.__file__).parent.parent
    info = f"{LENT}-1.0.dist-info"
    path = folder / f"{LENT}-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {LENT}\nVersion: 1.0\n"
    kind = "Wheel-Version: 1.0\nGenerator: check\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    parts = {f"{LENT}.pth": f"{site}\n", f"{info}/METADATA": metadata, f"{info}/WHEEL": kind}
    record = "".join(f"{name},,\n" for name in [*parts, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as z:
        for name, text in [*parts.items(), (f"{info}/RECORD", record)]:
            z.writestr(name, text)
    return path


class Check:
    """The server and what the checks need of it."""

    def __init__(self, server: Server, folder: Path):
        self.server, self.folder = server, folder
        self.lent = wheel(folder)

    def start(self, name: str, source: str, *flags: str) -> subprocess.Popen[str]:
        """Begin a script as a job."""
        work = self.folder / name
        work.mkdir()
        (work / "main.py").write_text(source)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        command = [binary(), "run", "--python", version, "--with", f"{LENT} @ file://{self.lent}", *flags]
        command += ["--data", str(self.server.data), "--name", name, "--", "main.py"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_env(), cwd=work
        )

    def run(self, name: str, source: str, *flags: str) -> str:
        """What a script printed; it must have ended well."""
        program = self.start(name, source, *flags)
        text, _ = program.communicate(timeout=180)
        if program.returncode:
            raise AssertionError(f"{name} ended with {program.returncode}: {text[-2000:]}")
        return text


def seen(c: Check) -> None:
    """The server finds the GPU by itself and can name it."""
    text = c.server.command("queue", "--json")
    assert "GPU-" in text, text


def computes(c: Check) -> None:
    """A job with a GPU gets exactly one, and computes on it."""
    got = c.run("computes", PRODUCT, "--gpu", "1")
    line = re.search(r"sum \d+ 1 \S+", got)
    assert line, got
    print(f"gpu: {line.group()}")


def blind(c: Check) -> None:
    """A job that asked for no GPU sees none."""
    got = c.run("blind", BLIND)
    assert "cuda False" in got, got


def turns(c: Check) -> None:
    """More jobs than GPUs run one after the other."""
    log = c.folder / "turns"
    jobs = [c.start(f"turn-{i}", HOLD.format(log=log), "--gpu", "1") for i in range(3)]
    for job in jobs:
        text, _ = job.communicate(timeout=180)
        assert job.returncode == 0, text[-2000:]
    assert log.read_text().split() == ["begin", "end"] * 3, log.read_text()


HANDLER = """
import os
import torch

def handle(data, context):
    if not data:
        return None
    gpu = context.system_properties["gpu_id"]
    a = torch.tensor(data, dtype=torch.float64, device="cuda:%s" % gpu)
    return [["%s" % gpu, os.environ["CUDA_VISIBLE_DEVICES"][:4], row.sum().item()] for row in a]
"""


def archive() -> bytes:
    """A TorchServe archive whose handler computes on its GPU."""
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "model": {"modelName": "g", "handler": "handler.py:handle", "modelVersion": "1"},
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        z.writestr("handler.py", HANDLER)
    return data.getvalue()


def call(c: Check, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a method answers; of a long-running one, what it ends with."""
    root = "/v1beta1/projects/tategu/locations/us-central1/"
    path = path if path.startswith("/") else root + path
    try:
        got = json.loads(c.server.request("POST", path, json.dumps(body).encode()))
    except urllib.error.HTTPError as e:
        raise AssertionError(f"{path}: {e.code} {e.read().decode()}") from e
    while "/operations/" in got.get("name", "") and not got.get("done"):
        time.sleep(0.1)
        got = json.loads(c.server.request("GET", "/v1beta1/" + got["name"]))
    assert "error" not in got, got
    return dict(got.get("response", got))


def serves(c: Check) -> None:
    """A model on an endpoint gets the GPU that its machine spec asks for, and the queue
    says who has it; when it is undeployed the GPU is free."""
    if importlib.util.find_spec("ts") is None:
        print("gpu: skipped: this Python has no torchserve, for a model on a GPU")
        return
    c.server.make_bucket("tategu", "models")
    c.server.put("models", "g/model.mar", archive())
    model = call(c, "models:upload", {"model": {"displayName": "g", "artifactUri": "gs://models/g"}})["model"]
    endpoint = call(c, "endpoints", {"displayName": "g"})["name"]
    machine = {"machineType": "a2-highgpu-1g", "acceleratorType": "NVIDIA_TESLA_A100", "acceleratorCount": 1}
    resources = {"machineSpec": machine, "minReplicaCount": 1, "maxReplicaCount": 1}
    at = f"/v1beta1/{endpoint}"
    deployed = call(c, f"{at}:deployModel", {"deployedModel": {"model": model, "dedicatedResources": resources}})
    for i in range(8):
        got = call(c, f"{at}:predict", {"instances": [[i, 1], [i, 2]]})
        assert got["predictions"] == [["0", "GPU-", i + 1], ["0", "GPU-", i + 2]], got
    assert "1 of 1 GPUs" in c.server.command("queue"), c.server.command("queue")
    call(c, f"{at}:undeployModel", {"deployedModelId": deployed["deployedModel"]["id"]})
    end = time.monotonic() + 60
    while "0 of 1 GPUs" not in c.server.command("queue"):
        assert time.monotonic() < end, c.server.command("queue")
        time.sleep(0.1)


def refused(c: Check) -> None:
    """More GPUs than there are: refused at once, by name."""
    program = c.start("many", BLIND, "--gpu", "64")
    text, _ = program.communicate(timeout=60)
    assert program.returncode and "64 GPUs are asked for" in text, text


def config() -> str:
    """Archives are served by this Python."""
    return f"torchserve: {{python: {json.dumps(sys.executable)}}}\n"


def main() -> int:
    """Run all; the exit status is 1 if one failed."""
    checks: list[Callable[[Check], None]] = [seen, computes, blind, turns, refused, serves]
    try:
        import torch
    except ImportError:
        print(f"gpu: skipped: {sys.executable} has no torch")
        return 0
    if not torch.cuda.is_available():
        print("gpu: skipped: torch sees no GPU on this machine")
        return 0
    failed = 0
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), config()) as server:
        c = Check(server, Path(folder))
        for check in checks:
            try:
                check(c)
                print("ok  ", check.__name__, flush=True)
            except Exception:
                failed += 1
                print("FAIL", check.__name__, traceback.format_exc(), flush=True)
        if failed:
            print(os.linesep.join(server.log.read_text().splitlines()[-40:]))
    print(f"gpu: {len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
