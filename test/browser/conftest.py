"""A server of its own, the unmodified SDK, and Debian's Chromium driven by Playwright.

What is missing is a reason to skip, never to download: the browser is the system's
(`apt-get install chromium fonts-dejavu-core`), or the one that TATEGU_TEST_CHROMIUM
names.
"""

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server, clean_env

CHROMIUM = os.environ.get("TATEGU_TEST_CHROMIUM") or shutil.which("chromium")
PROJECT, LOCATION = "p", "us-central1"
SHELL = 'images: [{match: shell, command: ["/bin/sh", -c]}]\n'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where there is no browser, or nothing that drives it."""
    reason = ""
    try:
        import axe_playwright_python.sync_playwright
        import playwright.sync_api  # noqa: F401
    except ImportError as e:
        reason = f"{e.name} is not installed: make .venv/clients/.built"
    if not CHROMIUM:
        reason = "no Chromium: apt-get install chromium fonts-dejavu-core"
    for item in items if reason else []:
        item.add_marker(pytest.mark.skip(reason=reason))


class Place:
    """A server on one port, which may be killed and started again."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.server = self.start()

    def start(self) -> Server:
        args = ("--listen", f"127.0.0.1:{self.port}")
        self.server = Server(self.folder, SHELL, args)
        return self.server

    def kill(self) -> None:
        """As by kill -9: programs go on."""
        self.server.process.kill()
        self.server.process.wait()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="tategu-browser-"))
    it = Place(folder)
    try:
        yield it
    finally:
        it.server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sdk(place: Place) -> Iterator[str]:
    """The SDK, pointed at the server; the bucket for its runs."""
    old = dict(os.environ)
    # The client asks the resource manager over gRPC whatever its transport is.
    env = place.server.env("--intercept")
    os.environ.clear()
    os.environ.update(env)
    os.environ["STORAGE_EMULATOR_HOST"] = place.url("")
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    aiplatform.init(
        project=PROJECT,
        location=LOCATION,
        staging_bucket="gs://staging",
        api_endpoint=place.url(""),
        api_transport="rest",
        credentials=AnonymousCredentials(),
    )
    place.server.make_bucket(PROJECT, "staging")
    yield "gs://staging"
    os.environ.clear()
    os.environ.update(old)


@pytest.fixture
def submit(sdk: str, tmp_path: Path):
    """Submits a pipeline function of kfp, or the text of a compiled one."""
    from google.cloud import aiplatform
    from kfp import compiler

    def submit(pipeline: Any, **parameters: Any) -> "aiplatform.PipelineJob":
        path = tmp_path / f"{uuid.uuid4().hex}.yaml"
        if isinstance(pipeline, str):
            path.write_text(pipeline)
        else:
            compiler.Compiler().compile(pipeline, str(path))
        job = aiplatform.PipelineJob(
            display_name=getattr(pipeline, "name", "compiled"),
            job_id=f"job-{uuid.uuid4().hex[:12]}",
            template_path=str(path),
            pipeline_root=f"{sdk}/root",
            parameter_values=parameters,
            enable_caching=False,
        )
        job.submit()
        return job

    return submit


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    env: dict[str, str | float | bool] = {**clean_env()}
    with sync_playwright() as p:
        it = p.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"],
            env=env,
        )
        yield it
        it.close()


@pytest.fixture
def watch(browser: Any, place: Place) -> Iterator[Any]:
    """Opens pages; at the end nothing may be on their consoles, nor asked elsewhere."""
    contexts: list[Any] = []
    complaints: list[str] = []
    allowed: list[str] = []

    def watch(job: Any, query: str = "", expect: str = "", **options: Any) -> Any:
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        if expect:
            allowed.append(expect)
        page.on("pageerror", lambda e: complaints.append(f"error: {e}"))
        page.on(
            "console",
            lambda m: (
                complaints.append(f"{m.type}: {m.text}")
                if m.type in ("error", "warning")
                else None
            ),
        )
        page.on(
            "request",
            lambda r: (
                complaints.append(f"elsewhere: {r.url}")
                if urlsplit(r.url).scheme in ("http", "https")
                and urlsplit(r.url).netloc != f"127.0.0.1:{place.port}"
                else None
            ),
        )
        name = job if isinstance(job, str) else f"/console/{job.resource_name}"
        page.goto(place.url(name + query))
        return page

    yield watch
    for context in contexts:
        with contextlib.suppress(Exception):
            context.close()
    assert [c for c in complaints if not any(a in c for a in allowed)] == []
