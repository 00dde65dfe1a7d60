"""The stock TorchServe in Java and `tategu torchserve`, side by side: the same archives and requests, the same bytes back."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import urllib.parse
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import ROOT, binary, clean_env, free_ports

PYTHON = os.environ.get("TATEGU_TEST_TORCHSERVE", "")
MODELS = ("image", "scripted", "boxes", "segments", "text", "base", "stream", "speaks")
# Headers whose value is of the one request, or of the connection: TorchServe closes one that had an error.
OWN = {"x-request-id", "date", "connection"}


@dataclass
class Answer:
    """What came back; headers in small letters, as HTTP/1.1 compares them."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Ask:
    """A request to the inference API."""

    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    method: str = ""


def drawing(color: tuple[int, int, int]) -> bytes:
    """A small picture as PNG: a gradient of a color."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(c * (x + y) // 112 for x in range(64) for c in color) for y in range(48))
    head = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Server:
    """One of the two, in the foreground."""

    def __init__(self, name: str, folder: Path, store: Path, command: list[str], envelope: str):
        self.name = name
        self.folder = folder
        folder.mkdir()
        (folder / "tmp").mkdir()
        self.ports = free_ports(5)
        lines = [f"{n}_address=http://127.0.0.1:{p}" for n, p in zip(("inference", "management", "metrics"), self.ports, strict=False)]
        lines += [f"grpc_inference_port={self.ports[3]}", f"grpc_management_port={self.ports[4]}"]
        lines += ["disable_token_authorization=true", "enable_model_api=true", "disable_system_metrics=true", "default_response_timeout=300"]
        if envelope:
            lines.append(f"service_envelope={envelope}")
        (folder / "config.properties").write_text("\n".join(lines) + "\n")
        env = clean_env() | {
            "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}",
            "TMPDIR": str(folder / "tmp"),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [*command, "--start", "--foreground", "--ncs", "--model-store", str(store), "--ts-config", "config.properties"]
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + 180
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.ask(Ask("/ping")).status == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"{self.name} does not start:\n{(self.folder / 'log').read_text()[-3000:]}")

    def ask(self, a: Ask, api: int = 0) -> Answer:
        """Send a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[api], timeout=300)
        with contextlib.closing(connection):
            connection.request(a.method or ("POST" if a.body is not None else "GET"), a.path, a.body, a.headers)
            r = connection.getresponse()
            body = r.read()
            return Answer(r.status, sorted((k.lower(), v) for k, v in r.getheaders() if k.lower() not in OWN), body)

    def register(self, name: str) -> None:
        """Register an archive, with one worker."""
        answer = self.ask(Ask(f"/models?url={name}.mar&initial_workers=1&synchronous=true", b""), 1)
        assert answer.status == 200, f"{self.name}: {name}: {answer.body.decode()}\n{(self.folder / 'log').read_text()[-3000:]}"

    def predict(self, model: str, parts: dict[str, bytes], stream: bool = False) -> tuple[str, list[bytes]]:
        """Ask over gRPC; its status and answers."""
        message = text(1, model.encode()) + b"".join(text(3, text(1, k.encode()) + text(2, v)) for k, v in parts.items())
        service = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{self.ports[3]}", options=options) as channel:
            try:
                if stream:
                    return "OK", list(channel.unary_stream(service + "StreamPredictions")(message, timeout=300))
                return "OK", [channel.unary_unary(service + "Predictions")(message, timeout=300)]
            except grpc.RpcError as e:
                return e.code().name, []

    def stop(self) -> None:
        """End it and its workers; the one in Java leaves some behind."""
        pids = tree(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def text(number: int, value: bytes) -> bytes:
    """A field of bytes of a protobuf message."""
    size, n = b"", len(value)
    while n > 127:
        size, n = size + bytes([n & 127 | 128]), n >> 7
    return bytes([number << 3 | 2]) + size + bytes([n]) + value


def tree(root: int) -> list[int]:
    """A process and all below it."""
    parent = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, above in parent.items() if above in found} - found:
        found |= more
    return sorted(found)


@dataclass
class Both:
    """The two, and why a model is on neither."""

    java: Server
    ours: Server
    missing: dict[str, str]

    def same(self, model: str, *asks: Ask) -> list[Answer]:
        """Ask both; they must not differ in anything."""
        if model in self.missing:
            pytest.skip(self.missing[model])
        answers, differ = [], []
        for a in asks:
            java, ours = self.java.ask(a), self.ours.ask(a)
            if ours != java:
                differ.append(f"{a.method} {a.path} {a.headers}\n  TorchServe: {short(java)}\n  tategu:     {short(ours)}")
            answers.append(ours)
        assert not differ, "\n".join(differ)
        return answers


def short(a: Answer) -> str:
    """An answer in a line."""
    return f"{a.status} {a.headers} {a.body[:600]!r}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archives."""
    if not PYTHON:
        pytest.skip("TATEGU_TEST_TORCHSERVE names no Python with torchserve")
    if not shutil.which("java"):
        pytest.skip("java is not on the PATH, which the stock TorchServe needs")
    probe = subprocess.run([PYTHON, "-c", "import torch, ts"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"torch is not installed: {probe.stderr.strip().rsplit(chr(10), 1)[-1]}")
    store = tmp_path_factory.mktemp("store")
    env = clean_env() | {"PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([PYTHON, "-W", "ignore", ROOT / "test/torchserve/models.py", store], env=env, check=True)
    return store


@contextlib.contextmanager
def started(store: Path, root: Path, models: tuple[str, ...], envelope: str = "") -> Iterator[Both]:
    """Both servers with some archives."""
    missing = json.loads((store / "missing.json").read_text())
    with contextlib.ExitStack() as stack:
        java = Server("TorchServe", root / "java", store, [PYTHON, str(Path(PYTHON).parent / "torchserve")], envelope)
        stack.callback(java.stop)
        ours = Server("tategu", root / "tategu", store, [binary(), "torchserve", "--python", PYTHON], envelope)
        stack.callback(ours.stop)
        for server in (java, ours):
            server.wait()
            for name in models:
                if name not in missing:
                    server.register(name)
        yield Both(java, ours, missing)


@pytest.fixture(scope="module")
def both(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Both servers with all archives but the base handler's, which needs an envelope."""
    with started(store, tmp_path_factory.mktemp("stock"), tuple(m for m in MODELS if m != "base")) as servers:
        yield servers


def form(*fields: tuple[str, bytes, str]) -> tuple[bytes, dict[str, str]]:
    """A form with fields of a name, bytes, and the name of a file, "" = none."""
    out = b""
    for name, value, file in fields:
        out += f'--edge\r\nContent-Disposition: form-data; name="{name}"'.encode()
        out += f'; filename="{file}"\r\nContent-Type: application/octet-stream'.encode() if file else b""
        out += b"\r\n\r\n" + value + b"\r\n"
    return out + b"--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


PICTURE = drawing((250, 80, 30))
OTHER = drawing((20, 220, 160))


@pytest.mark.parametrize("model", ["image", "scripted", "boxes", "segments"])
def test_images(both: Both, model: str) -> None:
    """The default handlers of images: as a body, of a type, as a form, over every route."""
    upload, kind = form(("data", PICTURE, "a.png"))
    first, *rest = both.same(
        model,
        Ask(f"/predictions/{model}", PICTURE, method="PUT"),
        Ask(f"/predictions/{model}", PICTURE, {"Content-Type": "image/png"}),
        Ask(f"/predictions/{model}/1.0", upload, kind),
        Ask(f"/{model}/predict", PICTURE, {"Content-Type": "application/octet-stream"}),
        Ask(f"/models/{model}/invoke", PICTURE),
        Ask(f"/v1/models/{model}:predict", PICTURE),
        Ask(f"/v2/models/{model}/infer", PICTURE),
    )
    assert first.status == 200
    assert all(a.body == first.body for a in rest)
    (other, broken) = both.same(model, Ask(f"/predictions/{model}", OTHER), Ask(f"/predictions/{model}", b"this is no picture"))
    assert other.status == 200
    assert other.body != first.body
    assert broken.status == 503


def test_images_explained(both: Both) -> None:
    """Captum's attributions, in the bytes of TorchServe."""
    first, *_ = both.same("image", Ask("/explanations/image", PICTURE), Ask("/v1/models/image:explain", PICTURE))
    assert first.status == 200
    assert len(json.loads(first.body)) == 3


def test_text(both: Both) -> None:
    """The default handler of texts, and its attributions."""
    line = "<b>The A</b> quick brown fox, JUMPS óver lazy dog. Isn't good!"
    answers = both.same(
        "text",
        Ask("/predictions/text", line.encode()),
        Ask("/predictions/text", line.encode(), {"Content-Type": "text/plain; charset=utf-8"}),
        Ask("/predictions/text", b"data=lazy+dog", {"Content-Type": "application/x-www-form-urlencoded"}),
        Ask("/text/predict?data=lazy%20dog"),
        Ask("/predictions/text", b"words that nobody knows"),
        Ask("/explanations/text", b"a quick brown fox"),
    )
    assert set(json.loads(answers[0].body)) == {"bad", "fair", "good"}
    assert answers[2].body == answers[3].body
    assert answers[4].status == 503


@pytest.mark.parametrize("envelope", ["json", "kserve", "kservev2"])
def test_base(store: Path, tmp_path: Path, envelope: str) -> None:
    """The base handler, whose input is what an envelope takes out of JSON."""
    rows = [[1, 2, 3, 4], [0.5, 0, -1, 1e-9]]
    body = json.dumps({"instances": rows, "id": "a", "inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP64", "data": rows}]}).encode()
    kind = {"Content-Type": "application/json"}
    with started(store, tmp_path, ("base",), envelope) as both:
        first, *_ = both.same(
            "base",
            Ask("/predictions/base", body, kind),
            Ask("/predictions/base", body, {"Content-Type": "application/json; charset=utf-8"}),
            Ask("/v1/models/base:predict", body, kind),
            Ask("/v2/models/base/infer", body, kind),
            Ask("/predictions/base", b'{"instances": [[1, 2]]}', kind),
            Ask("/predictions/base", b'{"instances"', kind),
            Ask("/predictions/base", b"[]", kind),
            Ask("/v1/models/base"),
        )
    if envelope != "kservev2":
        assert first.status == 200
        assert [len(row) for row in json.loads(first.body)["predictions"]] == [3, 3]


def test_stream(both: Both) -> None:
    """Several frames, over HTTP and gRPC."""
    (answer,) = both.same("stream", Ask("/predictions/stream", b"a body"))
    assert answer.body.count(b"\n") == 3
    assert answer.body.endswith(b"the end of a body")
    over = [s.predict("stream", {"data": b"a body"}, stream=True) for s in (both.java, both.ours)]
    assert over[0] == over[1]
    assert len(over[1][1]) == 4


@pytest.mark.parametrize(
    "ask",
    ["bytes", "text", "number", "empty", "list", "object", "tensor", "type", "typed-json", "headers", "status", "all",
     "raises", "prediction", "count", "none", "request", ""],
)  # fmt: skip
def test_own(both: Both, ask: str) -> None:
    """What a handler of one's own may answer: types, headers, statuses, errors."""
    upload, kind = form(("ask", ask.encode(), ""), ("file", b"\x00\xff", "f.bin"), ("file", b"again", "g.bin"))
    both.same(
        "speaks",
        Ask(f"/models/speaks/invoke?ask={urllib.parse.quote(ask)}&more=1", b"a=b&c=d", {"Content-Type": "application/x-www-form-urlencoded"}),
        Ask("/predictions/speaks", upload, kind),
        Ask("/predictions/speaks/1.0/rest/of/path", upload, kind),
        Ask("/explanations/speaks", upload, kind),
        Ask("/speaks/1.0/predict?ask=" + ask),
        Ask("/v1/models/speaks:predict", upload, kind),
        Ask("/v1/models/speaks:explain", upload, kind),
        Ask("/v2/models/speaks/infer", upload, kind),
        Ask("/v2/models/speaks/explain", upload, kind),
    )


def test_requests_that_fail(both: Both) -> None:
    """Errors of the server itself."""
    both.same(
        "speaks",
        Ask("/predictions/unknown", b"x"),
        Ask("/predictions/speaks/9", b"x"),
        Ask("/explanations/unknown", b"x"),
        Ask("/v1/models/unknown:predict", b"x"),
        Ask("/v2/models/unknown/infer", b"x"),
        Ask("/invocations", b"x"),
        Ask("/nothing"),
        Ask("/ping"),
        Ask("/predictions/speaks", method="DELETE"),
        Ask("/predictions/speaks", '{"a": [1, 2.50, "ä"]}'.encode(), {"Content-Type": "application/json"}),
        Ask("/predictions/speaks"),
    )


@pytest.mark.parametrize(
    ("model", "parts"),
    [("image", {"data": PICTURE}), ("boxes", {"data": PICTURE}), ("segments", {"data": PICTURE}), ("text", {"data": b"quick brown fox"}),
     ("speaks", {"ask": b"bytes"}), ("speaks", {"ask": b"object"}), ("speaks", {"ask": b"request", "b": b"1"}), ("speaks", {"ask": b"empty"})],
)  # fmt: skip
def test_grpc(both: Both, model: str, parts: dict[str, bytes]) -> None:
    """The same over gRPC."""
    if model in both.missing:
        pytest.skip(both.missing[model])
    java, ours = both.java.predict(model, parts), both.ours.predict(model, parts)
    assert ours == java
    assert ours[0] == "OK"
