"""A server, and images made here: one from scratch in Rust, one of Debian packages.

    make conformance-containers

The last line is `N passed, N failed`; what a machine cannot do is skipped, with the
reason. Clients see the server as after `eval "$(tategu env --intercept)"`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import layout
from server import Server, clean_env

HERE = Path(__file__).resolve().parent
PROJECT = "p"
LOCATION = "us-central1"
NAME = "registry.test"  # of the server in its certificate
TARGET = "x86_64-unknown-linux-gnu"

# What tools are run with, and what was made before: clients of the server get
# other variables below.
TOOLS = clean_env()
MADE = {k: os.environ.get(f"TATEGU_TEST_{k}", "") for k in ("CRANE", "DEBIAN")}

SERVER = pytest.StashKey[Server]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start tategu, and set the variables before any client is imported."""
    if session.config.option.collectonly:
        return
    folder = Path(tempfile.mkdtemp(prefix="tategu-containers-"))
    server = Server(folder, args=("--project", PROJECT, "--hosts", NAME))
    session.config.stash[SERVER] = server
    os.environ.clear()
    os.environ.update(server.env("--intercept"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End the server; its log is kept and named when a test failed."""
    server = session.config.stash.get(SERVER, None)
    if server is None:
        return
    server.stop()
    if exitstatus == 0:
        shutil.rmtree(server.data.parent, ignore_errors=True)
    else:
        print(f"\nthe server's data and log are kept in {server.data.parent}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say last what outsiders read."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.collectonly:
        return
    counts = {kind: len(of) for kind, of in reporter.stats.items()}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    reporter.write_line(f"{counts.get('passed', 0)} passed, {failed} failed")


def run(*command: str | Path, **more: object) -> str:
    """Run a tool and give what it prints."""
    done = subprocess.run(
        [str(word) for word in command],
        **{"env": TOOLS, "timeout": 600, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = " ".join(str(word) for word in command)
        raise RuntimeError(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def built() -> Path:
    """The static program in Rust, built by cargo."""
    if shutil.which("cargo", path=TOOLS.get("PATH")) is None:
        pytest.skip("cargo is not installed")
    if os.uname().machine != "x86_64":
        pytest.skip(f"the image is built for {TARGET}")
    target = HERE / "rustserver/target"
    run(
        *("cargo", "build", "--quiet", "--release", "--locked", "--offline"),
        *("--target", TARGET, "--target-dir", target),
        cwd=HERE / "rustserver",
        env={**TOOLS, "RUSTFLAGS": "-C target-feature=+crt-static"},
    )
    return target / TARGET / "release/rustserver"


@dataclass(frozen=True)
class Image:
    """An image that was brought to the server from a file."""

    reference: str  # as a client of the registry names it
    tar: Path
    digest: str  # of its manifest


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Server:
    """The running server."""
    return pytestconfig.stash[SERVER]


@pytest.fixture(scope="session")
def rust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tar of an image from scratch: one static program."""
    folder = tmp_path_factory.mktemp("rust")
    program = built()
    files = layout.layer({"rustserver": (program, 0o755)}, folder / "layer.tar")
    config = {"Entrypoint": ["/rustserver"]}
    return layout.image([files], config, folder / "image.tar")


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tar of an image of Debian packages, with a Python program on top."""
    folder = tmp_path_factory.mktemp("debian")
    base = folder / "base.tar"
    if MADE["DEBIAN"]:
        base.symlink_to(MADE["DEBIAN"])
    else:
        if shutil.which("mmdebstrap", path=TOOLS.get("PATH")) is None:
            pytest.skip("mmdebstrap is not installed")
        if os.geteuid() != 0:
            pytest.skip("mmdebstrap is run as root here")
        run(
            *("mmdebstrap", "--quiet", "--variant=minbase"),
            *("--include=python3,python3-pip", "bookworm", base),
        )
    files = {"srv/server.py": (HERE / "debian/server.py", 0o644)}
    layers = [base, layout.layer(files, folder / "layer.tar")]
    config = {"Entrypoint": ["python3", "/srv/server.py"]}
    return layout.image(layers, config, folder / "image.tar")


@pytest.fixture(scope="session", params=["rust", "debian"])
def image(request: pytest.FixtureRequest, server: Server) -> Image:
    """Each image, brought to the server by `tategu image import`."""
    tar = request.getfixturevalue(request.param)
    return bring(server, tar, f"team/{request.param}:v1")


def bring(server: Server, tar: Path, name: str) -> Image:
    """Import a tar."""
    server.command("image", "import", str(tar), "--name", name)
    port = server.address.rpartition(":")[2]
    about = json.loads(server.command("image", "inspect", name))
    return Image(f"127.0.0.1:{port}/{name}", tar, about["digest"])


@pytest.fixture(scope="session")
def sdk(server: Server) -> Iterator[None]:
    """The SDK, set up as a program for the cloud does it."""
    from google.cloud import aiplatform

    server.make_bucket(PROJECT, "staging")
    aiplatform.init(project=PROJECT, location=LOCATION, staging_bucket="gs://staging")
    yield
    aiplatform.initializer.global_pool.shutdown(wait=True)


@pytest.fixture
def bucket(sdk: None):
    """A new bucket with the object numbers.txt."""
    from google.cloud import storage

    made = storage.Client(project=PROJECT).create_bucket(f"b-{uuid.uuid4().hex}")
    made.blob("numbers.txt").upload_from_string("1 2.5\n3\n")
    return made


@pytest.fixture(scope="session")
def crane(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The unmodified client of go-containerregistry."""
    if MADE["CRANE"]:
        return MADE["CRANE"]
    if shutil.which("go", path=TOOLS.get("PATH")) is None:
        pytest.skip("TATEGU_TEST_CRANE names no crane, and go is not installed")
    out = tmp_path_factory.mktemp("crane") / "crane"
    package = "github.com/google/go-containerregistry/cmd/crane"
    run(
        *("go", "build", "-trimpath", "-o", out, package),
        cwd=HERE / "crane",
        env={**TOOLS, "CGO_ENABLED": "0"},
    )
    return str(out)
