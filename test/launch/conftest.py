"""A server for the whole run, which tests may kill and start again."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server, binary, echo_config

RUNNING = pytest.StashKey["Restarting"]()


class Restarting:
    """A server that can be killed, and comes back on the same port and data."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tategu-launch-"))
        self.config = echo_config("echo")
        self.server = Server(self.folder, self.config)

    def kill(self):
        """End the server without warning."""
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait()

    def again(self):
        """Start it again."""
        self.server.log.write_text("")
        self.server = Server(
            self.folder, self.config, args=("--listen", self.server.address)
        )


def pytest_sessionstart(session):
    """Start the server and point the clients at it, before any is imported."""
    if session.config.option.collectonly:
        return
    running = Restarting()
    session.config.stash[RUNNING] = running
    os.environ.update(running.server.env("--intercept"))
    os.environ["TATEGU_BIN"] = binary()
    from google.cloud import aiplatform

    aiplatform.init(project="p", location="us-central1", staging_bucket="gs://staging")


def pytest_sessionfinish(session, exitstatus):
    """End the server; its log is kept and named when a test failed."""
    running = session.config.stash.get(RUNNING, None)
    if running is None:
        return
    running.server.stop()
    if exitstatus == 0:
        shutil.rmtree(running.folder, ignore_errors=True)
    else:
        print(f"\nthe server's data and log are kept in {running.folder}")


def pytest_unconfigure(config):
    """Say last what outsiders read."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.collectonly:
        return
    counts = {kind: len(of) for kind, of in reporter.stats.items()}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    reporter.write_line(f"{counts.get('passed', 0)} passed, {failed} failed")


@pytest.fixture(scope="session")
def server(pytestconfig):
    """The running server."""
    return pytestconfig.stash[RUNNING]
