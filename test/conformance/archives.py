"""Makes the archives that TorchServe's collections ask for.

Their content is of no account to the collections, but for what a request expects: a
workflow gives the answer that its row has, one whose registration must fail has workers
that cannot start, one whose prediction must fail never answers in time.
"""

import io
import json
import posixpath
import re
import zipfile
from pathlib import Path
from typing import Any

URL = re.compile(r"https?://[^\s\"?&,]+\.(?:mar|war)")
SOURCE = re.compile(r"\"(?:src|file)\":\s*\"([^\"{]+)\"")

ECHO = """
def handle(data, context):
    if data is None:
        return None
    return [str(len(row)) for row in data]
"""
ANSWER = """
import json
def handle(data, context):
    if data is None:
        return None
    return [json.loads({answer!r}) for _ in data]
"""
SLOW = """
import time
def handle(data, context):
    if data is None:
        return None
    time.sleep(3)
    return ["late" for _ in data]
"""
NO_PACKAGE = "import a_package_that_nobody_has\n\n\ndef handle(data, context):\n    return None\n"
NO_MEMORY = """
class Handler:
    def initialize(self, context):
        raise MemoryError("no memory for the model")
    def handle(self, data, context):
        return [""] * len(data)
"""
FUNCTIONS = """
def pre(data, context):
    if data is None:
        return None
    return [row.get("body") or row.get("data") for row in data]


def post(data, context):
    if data is None:
        return None
    return [next(iter(row.values())) for row in data]
"""
SPEC = """
models:
    min-workers: 1
    max-workers: 1
    batch-size: 1
    max-batch-delay: 10
    retry-attempts: {retries}
    timeout-ms: {timeout}
    model:
        url: {url}
dag:
    pre: [model]
    model: [post]
"""


class Archives:
    """The files of one collection: a model store, what is fetched, what is sent."""

    def __init__(self, root: Path, environment: dict[str, str], collection: str, rows: list[dict[str, Any]]):
        self.store = root / "store"
        self.store.mkdir()
        (root / "postman").mkdir()
        self.files: dict[str, bytes] = {}
        for name in environment.values():
            if name.endswith(".mar"):
                self._model(name, ECHO)
        text = collection + json.dumps(rows)
        for url in sorted(set(URL.findall(text))):
            self._fetched(url, rows)
        for path in set(SOURCE.findall(text)):
            self._sent(root, path)

    def _model(self, name: str, code: str) -> None:
        base = name.removesuffix(".mar")
        model = {"modelName": base, "handler": "handler.py:handle", "modelVersion": "1.0"}
        if "class Handler" in code:
            model["handler"] = "handler.py"
        manifest = {"createdOn": "01/01/2026 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
        files = {"handler.py": code, "MAR-INF/MANIFEST.json": json.dumps(manifest)}
        (self.store / name).write_bytes(archive(files))

    def _fetched(self, url: str, rows: list[dict[str, Any]]) -> None:
        """What a URL gives; one of a request that must not find it is left out."""
        asks = [row for row in rows if url in json.dumps(row)]
        first = next(iter(asks), {})
        base = posixpath.basename(url)
        name = base.rsplit(".", 1)[0]
        refused = first.get("path", "") and first.get("status_code", 200)
        if refused == 400 or base.endswith(".mar"):
            return  # .mar by URL are those whose download must fail, or is not reached
        code, timeout, workflow = self._code(first, name), 60_000, first.get("workflow_name", self._named(name, rows))
        if code is SLOW:
            timeout = 300
        self._model(f"of_{name}.mar", code)
        self.files[url] = archive(
            {
                "functions.py": FUNCTIONS,
                "workflow.yaml": SPEC.format(url=f"of_{name}.mar", timeout=timeout, retries=1),
                "WAR-INF/MANIFEST.json": json.dumps(
                    {
                        "createdOn": "01/01/2026 00:00:00",
                        "runtime": "python",
                        "workflow": {"workflowName": workflow, "specFile": "workflow.yaml", "handler": "functions.py"},
                        "archiverVersion": "0.2.4",
                    }
                ),
            }
        )

    @staticmethod
    def _named(name: str, rows: list[dict[str, Any]]) -> str:
        """The name that requests for a workflow use: the one its file's name begins with."""
        names = {m[1] for row in rows if (m := re.fullmatch(r"workflows/(\w+)", row.get("path", "")))}
        return next((n for n in sorted(names) if name.startswith(n)), name)

    @staticmethod
    def _code(row: dict[str, Any], name: str) -> str:
        if row.get("status_code", 200) == 500:
            if "path" not in row:
                return SLOW
            return NO_MEMORY if "memory" in name else NO_PACKAGE
        if "expected" in row:
            return ANSWER.format(answer=json.dumps(row["expected"]))
        return ECHO

    @staticmethod
    def _sent(root: Path, path: str) -> None:
        """A file that a request sends, beside the collections as they lie upstream."""
        target = Path(posixpath.normpath(posixpath.join((root / "postman").as_posix(), path)))
        if root in target.parents:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"\xff\xd8\xff\xe0 a picture of nothing")


def archive(files: dict[str, str]) -> bytes:
    """A zip archive of texts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, text in files.items():
            z.writestr(name, text)
    return out.getvalue()
