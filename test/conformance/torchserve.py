"""Runs TorchServe's own Postman collections, unmodified, against `tategu torchserve`.

    python torchserve.py --dir FOLDER --newman PATH --python PYTHON

FOLDER holds *_collection.json (with X_data.json beside them) and environment.json.
PYTHON has the packages torchserve and torch; without them nothing is run, and the
reason is told. Archives are made here: each .mar that the environment names, and what
the collections fetch from URLs, which a proxy of this program serves, so that nothing
leaves the machine. The last line is `N passed, N failed`, in assertions.
"""

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from archives import Archives
from server import binary, clean_env
from webproxy import Authority, Proxy

# Collections whose data goes by another name; the others are X_data.json of
# X_collection.json and X_test_collection.json.
DATA = {
    "management_api_test_collection": "management_data",
    "workflow_api_test_collection": "workflow_data",
    "workflow_inference_collection": "workflow_inference_data",
    "inference_api_test_collection": "inference_data",
}
# What cannot be run here, and why.
UNUSABLE = {
    "inference_api_test_collection": "its expected answers are those of real weights of a model zoo",
    "kfv1_inference_api_test_collection": "its expected answers are those of real weights",
    "kfv2_inference_api_test_collection": "its expected answers are those of real weights",
}
PORTS = ("pred-port", "mgmt-port", "metric-port")
SECURE = ("sec-pred-port", "sec-mgmt-port", "sec-metric-port")
GRPC = ("grpc_inference_port", "grpc_management_port")


def main() -> int:
    """Run every collection of the folder and count assertions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", required=True, type=Path, help="folder of collections")
    parser.add_argument("--newman", required=True, help="the newman program")
    parser.add_argument("--python", required=True, help="Python with torchserve and torch")
    parser.add_argument("--only", default="", help="run collections whose name has this")
    parser.add_argument("--verbose", action="store_true", help="show the server's log where an assertion failed")
    args = parser.parse_args()
    collections = sorted(args.dir.glob("*_collection.json"))
    if not collections:
        print(f"conformance-torchserve: {args.dir} has no *_collection.json")
        print("0 passed, 0 failed")
        return 0 if not args.dir.exists() else 1
    if why := missing(args.python):
        print(f"conformance-torchserve: skipped, {why}")
        print("0 passed, 0 failed")
        return 0
    passed = failed = 0
    for path in collections:
        name = path.stem
        if args.only not in name:
            continue
        if name in UNUSABLE:
            print(f"{name}: skipped, {UNUSABLE[name]}")
            continue
        good, bad = run(path, data_of(path), args)
        passed, failed = passed + good, failed + bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def missing(python: str) -> str:
    """Why workers cannot run by a Python, "" if they can."""
    try:
        probe = subprocess.run(
            [python, "-c", "import torch, ts"], capture_output=True, text=True, timeout=120, check=False
        )
    except OSError as e:
        return f"{python} cannot be started: {e.strerror}"
    if probe.returncode:
        return "torch is not installed: " + probe.stderr.strip().rsplit("\n", 1)[-1] + " (Debian: apt-get install python3-torch)"
    return ""


def data_of(collection: Path) -> Path | None:
    """The iteration data of a collection."""
    base = re.sub(r"(_test)?_collection$", "", collection.stem)
    for name in (DATA.get(collection.stem), f"{base}_data"):
        if name and (path := collection.parent / f"{name}.json").exists():
            return path
    return None


def run(collection: Path, data: Path | None, args: argparse.Namespace) -> tuple[int, int]:
    """Run a collection on a fresh server."""
    environment = read_environment(args.dir / "environment.json")
    rows = json.loads(data.read_text()) if data else []
    with tempfile.TemporaryDirectory(prefix="tategu-ts-") as scratch:
        root = Path(scratch)
        authority = Authority(root / "ca")
        archives = Archives(root, environment, collection.read_text(), rows)
        ports = free_ports(environment)
        secure = SECURE[1] in collection.read_text()
        with Proxy(authority, archives.files) as proxy:
            server = Server(root, args.python, ports, authority, proxy, secure)
            with server:
                good, bad = newman(collection, data, args, root, ports)
                if bad and args.verbose:
                    print(server.log.read_text())
                return good, bad


def read_environment(path: Path) -> dict[str, str]:
    """The variables of an environment file."""
    if not path.exists():
        return {}
    return {v["key"]: v["value"] for v in json.loads(path.read_text())["values"]}


def free_ports(environment: dict[str, str]) -> dict[str, int]:
    """The ports of the environment, or free ones where another program has one."""
    ports = {k: int(environment.get(k, 0)) for k in (*PORTS, *SECURE)}
    with contextlib.ExitStack() as held:
        try:
            for port in ports.values():
                held.enter_context(bound(port))
        except OSError:
            ports = {k: held.enter_context(bound(0)).getsockname()[1] for k in ports}
            print(f"a port of the environment is taken; these are used: {ports}", flush=True)
        for k in GRPC:
            ports[k] = held.enter_context(bound(0)).getsockname()[1]
    return ports


def bound(port: int) -> socket.socket:
    """A socket on a port of loopback; 0 = any."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind(("127.0.0.1", port))
    except OSError:
        s.close()
        raise
    return s


def newman(
    collection: Path, data: Path | None, args: argparse.Namespace, root: Path, ports: dict[str, int]
) -> tuple[int, int]:
    """Run newman and count its assertions; a request without an answer is a failure."""
    report = root / "report.json"
    command = [args.newman, "run", str(collection), "--insecure", "--reporters", "json"]
    command += ["--reporter-json-export", str(report), "--working-dir", str(root / "postman")]
    if (args.dir / "environment.json").exists():
        command += ["--environment", str(args.dir / "environment.json")]
    if data:
        command += ["--iteration-data", str(data)]
    for key in (*PORTS, *SECURE):
        command += ["--env-var", f"{key}={ports[key]}"]
    env = clean_env() | {"NO_PROXY": "*"}
    end = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    if not report.exists():
        print(f"{collection.stem}: newman ended with {end.returncode}\n{end.stdout}{end.stderr}")
        return 0, 1
    result = json.loads(report.read_text())["run"]
    total = result["stats"]["assertions"]["total"]
    bad = result["stats"]["assertions"]["failed"]
    lost = result["stats"]["requests"]["failed"]
    for f in result["failures"]:
        print("  failed:", told(f, result))
    print(f"{collection.stem}: {total - bad}/{total} assertions, {result['stats']['requests']['total']} requests", flush=True)
    return total - bad, bad + lost


def told(failure: dict[str, Any], result: dict[str, Any]) -> str:
    """A failure with its request and answer."""
    text = f"{failure['error'].get('test') or failure['at']}: {failure['error']['message']}"
    ref = failure.get("cursor", {}).get("ref")
    for e in result["executions"]:
        if e["cursor"]["ref"] == ref and "response" in e:
            url = e["request"]["url"]
            body = bytes(e["response"].get("stream", {}).get("data", []))
            query = "&".join(f"{q['key']}={q['value']}" for q in url.get("query", []))
            where = "/".join(url.get("path", [])) + (f"?{query}" if query else "")
            text += f" | {e['request']['method']} {where} -> {e['response']['code']} {body[:300].decode(errors='replace')}"
    return " ".join(text.split())


class Server:
    """`tategu torchserve` in the foreground, for as long as the block runs."""

    def __init__(
        self, root: Path, python: str, ports: dict[str, int], authority: Authority, proxy: Proxy, secure: bool
    ):
        names = SECURE if secure else PORTS
        lines = [
            f"{key}=http{'s' if secure else ''}://127.0.0.1:{ports[name]}"
            for key, name in zip(("inference_address", "management_address", "metrics_address"), names, strict=True)
        ]
        lines += [f"{key}={ports[key]}" for key in GRPC]
        if secure:
            certificate, key = authority.certificate("localhost", root / "server")
            lines += [f"private_key_file={key}", f"certificate_file={certificate}"]
        config = root / "config.properties"
        config.write_text("\n".join(lines) + "\n")
        for folder in ("tmp", "run"):
            (root / folder).mkdir()
        self.log = root / "server.log"
        command = [binary(), "torchserve", "--start", "--foreground", "--ncs", "--disable-token-auth", "--enable-model-api"]
        command += ["--model-store", str(root / "store"), "--ts-config", str(config), "--python", python]
        env = clean_env() | proxy.environment() | {"SSL_CERT_FILE": str(authority.path), "TMPDIR": str(root / "tmp")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=root / "run")
        try:
            self._wait([ports[n] for n in names], 60)
        except BaseException:
            self.stop()
            raise

    def _wait(self, ports: list[int], seconds: float) -> None:
        """Wait until every port answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), contextlib.ExitStack() as open_:
                for port in ports:
                    open_.enter_context(socket.create_connection(("127.0.0.1", port), 1))
                return
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()}")

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


if __name__ == "__main__":
    sys.exit(main())
