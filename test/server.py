"""Starts the tategu binary for tests and benchmarks, and ends only what it started."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
ECHO = ROOT / "examples" / "echo" / "echo.py"

# Variables of the caller's shell that would point a client elsewhere, and the one
# that makes Python compile the clients again on each run.
FOREIGN = re.compile(
    r"^(https?_proxy|all_proxy|no_proxy|storage_emulator_host|api_endpoint_override"
    r"|google_.*|gce_metadata_.*|requests_ca_bundle|ssl_cert_file"
    r"|grpc_default_ssl_roots_file_path|tategu_(?!bin$).*|pythondontwritebytecode)$",
    re.IGNORECASE,
)


def binary() -> str:
    """The binary under test: TATEGU_BIN, else the one that make builds."""
    return os.environ.get("TATEGU_BIN") or str(ROOT / "bin" / "tategu")


def clean_env() -> dict[str, str]:
    """This process's environment without what would point clients anywhere."""
    return {k: v for k, v in os.environ.items() if not FOREIGN.match(k)}


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, for servers that cannot choose one themselves."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return found


def echo_config(*patterns: str) -> str:
    """Configuration text that runs the echo model server for some images."""
    command = json.dumps([sys.executable, str(ECHO)])
    rules = [f"  - match: {json.dumps(p)}\n    command: {command}\n" for p in patterns]
    return "images:\n" + "".join(rules)


class Server:
    """A running tategu with a data directory of its own."""

    def __init__(
        self,
        folder: Path,
        config: str = "",
        args: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
    ):
        self.data = folder / "data"
        self.log = folder / "server.log"
        command = [*prefix, binary(), "serve", "--data", str(self.data)]
        if "--listen" not in args:
            command += ["--listen", "127.0.0.1:0"]
        if config:
            path = folder / "tategu.yaml"
            path.write_text(config)
            command += ["--config", str(path)]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, *args],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=clean_env(),
                cwd=folder,
            )
        try:
            self.address = self._wait_ready(60)
        except BaseException:
            self.stop()
            raise

    def _wait_ready(self, seconds: float) -> str:
        """Wait for the ready line and give the address in it."""
        ready = re.compile(r"ready on https?://(\S+:\d+)")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := ready.search(self.log.read_text(errors="replace")):
                return found.group(1)
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        text = self.log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"the server is not ready:\n{text}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server, politely first, and what it leaves running on purpose.

        Programs outlive a server, which takes them over when it comes back; this
        one does not come back.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for pid in self._workloads():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _workloads(self) -> list[int]:
        """Processes that keep this server's programs, and all below them."""
        mark = str(self.data / "workloads")
        parent: dict[int, int] = {}
        found: set[int] = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parent[int(entry.name)] = int(stat[1])
                if any(a.decode(errors="replace").startswith(mark) for a in arguments):
                    found.add(int(entry.name))
        grown = True
        while grown:
            below = {pid for pid, above in parent.items() if above in found} - found
            found |= below
            grown = bool(below)
        return sorted(found)

    def command(self, *args: str) -> str:
        """Run the CLI against this server's data directory."""
        done = subprocess.run(
            [binary(), *args, "--data", str(self.data)],
            check=False,
            capture_output=True,
            text=True,
            env=clean_env(),
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"tategu {' '.join(args)}: {done.stderr or done.stdout}")
        return done.stdout

    def env(self, *flags: str) -> dict[str, str]:
        """The environment after `eval "$(tategu env ...)"`, as a user has it."""
        text = self.command("env", *flags)
        done = subprocess.run(
            ["sh", "-c", 'eval "$1" && env -0', "sh", text],
            capture_output=True,
            env=clean_env(),
            check=True,
        )
        pairs = (entry.partition("=") for entry in done.stdout.decode().split("\0"))
        return {name: value for name, _, value in pairs if name}

    def request(
        self, method: str, path: str, body: bytes | None = None, type_: str = ""
    ) -> bytes:
        """A plain request as the operator."""
        call = urllib.request.Request(
            f"http://{self.address}{path}", data=body, method=method
        )
        call.add_header("Content-Type", type_ or "application/json")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(call, timeout=60) as answer:
            return bytes(answer.read())

    def make_bucket(self, project: str, name: str) -> None:
        """Create a bucket."""
        body: dict[str, Any] = {"name": name}
        self.request(
            "POST", f"/storage/v1/b?project={project}", json.dumps(body).encode()
        )

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Create an object."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        self.request(
            "POST",
            f"/upload/storage/v1/b/{bucket}/o?{query}",
            content,
            "application/octet-stream",
        )
