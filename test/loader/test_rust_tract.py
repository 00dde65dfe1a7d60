"""The README of examples/rust-tract, word for word, under load."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from readme import steps
from server import Server, binary, clean_env

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/rust-tract"
ENOUGH = 50  # answers of a version that each client waits for

# What the net of a directory answers, by the reference evaluator of the onnx package.
EXPECT = """
import json, sys
import numpy as np
from onnx.reference import ReferenceEvaluator
rows = np.array(json.load(open("digit.json"))["instances"], "float32")
net = ReferenceEvaluator(sys.argv[1] + "/model.onnx")
print(json.dumps(net.run(None, {"pixels": rows})[0].tolist()))
"""


def free_port():
    """A port that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Shell:
    """One shell, so that variables and programs in the background last."""

    def __init__(self, folder, env):
        self.process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, commands):
        """What the commands print; they have to succeed."""
        self.process.stdin.write(f"{commands}\necho; echo '=====' $?\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.startswith("====="):
                assert line == "===== 0\n", f"$ {commands}{''.join(lines)}{line}"
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended: $ {commands}{''.join(lines)}")

    def end(self):
        """End the shell and what it started."""
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.communicate()


class Client(threading.Thread):
    """Asks without a pause, and keeps what is wrong."""

    def __init__(self, port, body, want):
        super().__init__()
        self.port, self.body, self.want = port, body, want
        self.seen, self.wrong = [], []  # versions; failures
        self.stop = threading.Event()
        self.news = threading.Condition()

    def run(self):
        """Ask until told to stop."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.stop.is_set():
            try:
                connection.request("POST", "/predict", self.body)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(repr(error))
                connection.close()
                continue
            version = answer.headers.get("X-Model-Version")
            if answer.status != 200:
                self.wrong.append((answer.status, body))
            elif (got := json.loads(body)["predictions"]) != self.want.setdefault(
                version, got
            ):
                self.wrong.append((version, got))
            with self.news:
                self.seen.append(version)
                self.news.notify_all()
        connection.close()

    def has(self, version):
        """Wait for enough answers of a version since now."""
        with self.news:
            begin = len(self.seen)
            assert self.news.wait_for(
                lambda: self.seen[begin:].count(version) >= ENOUGH, 60
            ), f"version {version} does not answer: {self.wrong[:3]}"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example's folder, with its target directory shared between runs."""
    target = os.environ.get("TATEGU_TEST_TARGET")
    python = os.environ.get("TATEGU_TEST_EXAMPLE_PYTHON")
    if not target or not python:
        pytest.skip("TATEGU_TEST_TARGET and TATEGU_TEST_EXAMPLE_PYTHON are unset")
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed")
    folder = tmp_path_factory.mktemp("example") / "rust-tract"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("target"))
    Path(target).mkdir(parents=True, exist_ok=True)
    (folder / "target").symlink_to(target)
    fetched = subprocess.run(
        ["cargo", "fetch", "--locked", "--quiet"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"cargo has not the crates: {fetched.stderr[-300:]}")
    return folder


def expected(example, server, version):
    """What a version answers, evaluated by another runtime."""
    files = server.command("model", "pull", "--quiet", f"digits@{version}").strip()
    python = os.environ["TATEGU_TEST_EXAMPLE_PYTHON"]
    done = subprocess.run(
        [python, "-c", EXPECT, files],
        cwd=example,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_readme_under_load(example, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # The example's packages are there: pip has nothing to do.
    tools = f"{Path(binary()).parent}:{tmp_path}"
    python = os.environ["TATEGU_TEST_EXAMPLE_PYTHON"]
    for name, words in (("python", '"$@"'), ("pip", "-c pass")):
        (tmp_path / name).write_text(f'#!/bin/sh\nexec "{python}" {words}\n')
        (tmp_path / name).chmod(0o755)
    ports = {"8095": str(free_port()), "8080": str(free_port())}
    body = (EXAMPLE / "digit.json").read_bytes()
    want: dict[str, list] = {}
    with Server(tmp_path) as server:
        env = {
            **clean_env(),
            "PATH": f"{tools}:{os.environ['PATH']}",
            "TATEGU_DATA": str(server.data),
        }
        shell = Shell(example, env)
        clients = [Client(int(ports["8080"]), body, want) for _ in range(4)]
        try:
            for commands, said in steps(EXAMPLE / "README.md"):
                for port, ours in ports.items():
                    commands = commands.replace(port, ours)
                output = shell.run(commands)
                for line in said:
                    pattern = r"[^\n]*".join(map(re.escape, line.split("…")))
                    assert re.search(pattern, output), f"$ {commands}{output}"
                if "/health" in commands:  # a version is there
                    version = re.findall(r'"version":"(\d+)"', output)[-1]
                    for client in clients:
                        if not client.is_alive():
                            client.start()
                        client.has(version)
            near = {
                v: pytest.approx(row, abs=1e-5)
                for v in ("1", "2")
                for row in expected(example, server, v)
            }
        finally:
            for client in clients:
                client.stop.set()
            for client in clients:
                if client.ident:
                    client.join()
            shell.end()
    assert not [w for client in clients for w in client.wrong]
    assert set(want) == {"1", "2"}
    for version, rows in want.items():
        assert rows == [near[version]]
    assert want["1"] != want["2"]
    for client in clients:  # 1, 2, and back to 1, each at once
        changes = [a for a, b in zip(client.seen, [None, *client.seen]) if a != b]
        assert changes == ["1", "2", "1"]
    print(f"loader: ok requests={sum(len(c.seen) for c in clients)} failed=0")
