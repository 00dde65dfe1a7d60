"""Makes archives of every default handler, and of handlers of one's own, with small networks of fixed weights.

    python models.py STORE

runs by a Python with torch, torchvision, captum and the unmodified torch-model-archiver. STORE gets the archives, and
missing.json: what is not made of a handler because a package is missing, by name.
"""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import torch

STORE = Path(sys.argv[1]).resolve()
ARCHIVER = Path(sys.executable).parent / "torch-model-archiver"

IMAGES = """
import torch
from torch import nn


class Classes(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 7)
        )

    def forward(self, images):
        return self.layers(images)
"""
BOXES = """
import torch
from torch import nn


class Boxes(nn.Module):
    # Brightness of each of 16 fields is the score of its box.
    def __init__(self):
        super().__init__()
        self.field = nn.AdaptiveAvgPool2d(4)
        self.weight = nn.Conv2d(3, 1, 1)

    def forward(self, images):
        height, width = images.shape[-2] / 4, images.shape[-1] / 4
        found = []
        for scores in self.weight(self.field(images))[:, 0].sigmoid():
            rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
            boxes = torch.stack([columns * width, rows * height, (columns + 1) * width, (rows + 1) * height], -1)
            found.append({"boxes": boxes.reshape(-1, 4), "labels": torch.arange(16) % 3, "scores": scores.flatten()})
        return found
"""
SEGMENTS = """
from torch import nn


class Segments(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 5, padding=2)

    def forward(self, images):
        return {"out": self.layer(images)}
"""
TEXTS = """
from torch import nn


class Texts(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(64, 8)
        self.layer = nn.Linear(8, 3)

    def forward(self, text, offsets):
        return self.layer(self.embedding(text, offsets))
"""
ROWS = """
from torch import nn


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, rows):
        return self.layer(rows)
"""
STREAM = '''
"""Sends a body back in pieces, each with what the network says of its length."""
import torch
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.torch_handler.base_handler import BaseHandler


class Handler(BaseHandler):
    def preprocess(self, data):
        return [bytes(row.get("data") or row.get("body")) for row in data]

    def inference(self, texts):
        for i in range(3):
            lengths = torch.tensor([[float(len(t))] * 4 for t in texts]) / (i + 1)
            pieces = [f"{i}: {row.tolist()}\\n" for row in self.model(lengths)]
            send_intermediate_predict_response(pieces, self.context.request_ids, "more", 200, self.context)
        return [b"the end of " + t for t in texts]

    def postprocess(self, texts):
        return texts
'''
SPEAKS = '''
"""Does what a request asks for: answers of every type, headers, statuses, errors."""
import json

import torch
from ts.utils.util import PredictionException


class Handler:
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        row = data[0]
        ask = row.get("ask", b"")
        ask = ask.decode() if isinstance(ask, (bytes, bytearray)) else str(ask)
        if ask == "bytes":
            return [bytes(range(256))]
        if ask == "text":
            return ["Kyōto \\u2028 <b>"]
        if ask == "number":
            return [0.1 + 0.2]
        if ask == "empty":
            return [""]
        if ask == "list":
            return [[1, 2.5, None, "ä"]]
        if ask == "object":
            return [{"b": 1, "a": {"nested": [True, False]}, "ä": "é"}]
        if ask == "tensor":
            return [torch.arange(3)]
        if ask == "type":
            context.set_response_content_type(0, "image/x-own; charset=utf-8")
            return [b"GIF"]
        if ask == "typed-json":
            context.set_response_content_type(0, "application/json")
            return [{"a": 1}]
        if ask == "headers":
            context.set_response_header(0, "X-Own", "one, two")
            context.set_response_header(0, "x-small", "Ä")
            context.set_response_header(0, "Cache-Control", "max-age=5")
            return ["with headers"]
        if ask == "status":
            context.set_response_status(418, "I am a teapot", 0)
            return ["short and stout"]
        if ask == "all":
            context.set_all_response_status(201, "Made")
            return ["made"]
        if ask == "raises":
            raise ValueError("this was asked for")
        if ask == "prediction":
            raise PredictionException("this was asked for", 513)
        if ask == "count":
            return ["one", "two"]
        if ask == "none":
            return None
        if ask == "request":
            names = ("explain", "url_path", "Content-Type", "Accept", "User-Agent")
            told = {n: context.get_request_header(0, n) for n in names}
            return [{"headers": told, "parts": {k: str(v) for k, v in sorted(row.items())}}]
        return [{k: str(v) for k, v in sorted(row.items())}]
'''


def network(text: str, name: str) -> torch.nn.Module:
    """Write a network's file, and make it with weights of its own."""
    path = STORE / f"{name.lower()}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name.lower(), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(7)
    made = getattr(module, name)().eval()
    torch.save(made.state_dict(), STORE / f"{name.lower()}.pt")
    return made


def archive(name: str, handler: str, *more: str) -> None:
    """Run the archiver."""
    command = [ARCHIVER, "--model-name", name, "--version", "1.0", "--handler", handler, "--export-path", STORE]
    subprocess.run([*command, *more], cwd=STORE, check=True)


def with_envelope(name: str, envelope: str) -> None:
    """Name an envelope in a manifest, which the archiver has no option for, and TorchServe does not look at."""
    path = STORE / f"{name}.mar"
    with zipfile.ZipFile(path) as z:
        files = {n: z.read(n) for n in z.namelist()}
    manifest = json.loads(files["MAR-INF/MANIFEST.json"])
    manifest["model"]["envelope"] = envelope
    files["MAR-INF/MANIFEST.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as z:
        for n, data in files.items():
            z.writestr(n, data)


def vision() -> None:
    """The handlers of images."""
    names = STORE / "index_to_name.json"
    names.write_text(json.dumps({str(i): f"class {i}" for i in range(16)}))
    classes = network(IMAGES, "Classes")
    torch.jit.script(classes).save(str(STORE / "scripted.pt"))
    archive("image", "image_classifier", "--model-file", "classes.py", "--serialized-file", "classes.pt", "--extra-files", str(names))
    archive("scripted", "image_classifier", "--serialized-file", "scripted.pt")
    network(BOXES, "Boxes")
    archive("boxes", "object_detector", "--model-file", "boxes.py", "--serialized-file", "boxes.pt", "--extra-files", str(names))
    network(SEGMENTS, "Segments")
    archive("segments", "image_segmenter", "--model-file", "segments.py", "--serialized-file", "segments.pt")


def text() -> None:
    """The handler of texts."""
    network(TEXTS, "Texts")
    words = "the a quick brown fox jumps over lazy dog is not good bad film the quick do not".split()
    known = dict.fromkeys([*words, *(f"{a} {b}" for a, b in zip(words, words[1:], strict=False))])
    torch.save({w: i for i, w in enumerate(known)}, STORE / "source_vocab.pt")
    names = STORE / "texts" / "index_to_name.json"
    names.parent.mkdir()
    names.write_text(json.dumps({"0": "bad", "1": "fair", "2": "good"}))
    archive("text", "text_classifier", "--model-file", "texts.py", "--serialized-file", "texts.pt",
            "--extra-files", f"source_vocab.pt,{names}")  # fmt: skip


def own() -> None:
    """The base handler, and handlers of one's own."""
    network(ROWS, "Rows")
    archive("base", "base_handler", "--model-file", "rows.py", "--serialized-file", "rows.pt")
    with_envelope("base", "body")
    for name, code in (("stream", STREAM), ("speaks", SPEAKS)):
        (STORE / f"{name}.py").write_text(code)
    archive("stream", "stream.py", "--model-file", "rows.py", "--serialized-file", "rows.pt")
    archive("speaks", "speaks.py")


def lacks(*modules: str) -> str:
    """Why a handler cannot be loaded here, "" if it can."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as e:
            return f"{name} is not there: {e}"
    return ""


def main() -> None:
    """Make all that this Python has packages for."""
    missing = {}
    own()
    if why := lacks("torchvision", "captum.attr"):
        missing |= dict.fromkeys(("image", "scripted", "boxes", "segments"), why)
    else:
        vision()
    if why := lacks("captum.attr"):
        missing["text"] = why
    else:
        text()
    (STORE / "missing.json").write_text(json.dumps(missing))


if __name__ == "__main__":
    main()
