"""How long the server takes to be ready, and how much memory and disk it takes.

    python start.py --binary bin/tategu [--runs 7] [--settle 30]

Each run has an empty data directory. What starts is a copy of the binary, as an
installed one is: the pages of a file that the linker has just written are kept
one by one, which shows as some megabytes more. The last line is
`ready_ms=... rss_mb=... binary_mb=...`: the smallest time from exec to the first
200 of /readyz, and the resident memory of the last run some seconds after that.
"""

import argparse
import http.client
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def ready(host: str, port: int) -> bool:
    """Say whether /readyz answers 200."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    if found is None:
        raise RuntimeError(f"no VmRSS in /proc/{pid}/status")
    return int(found.group(1)) * 1024 / 1e6


def run(binary: str, settle: float) -> tuple[float, float]:
    """Start once; give milliseconds until ready, and megabytes after a while."""
    with tempfile.TemporaryDirectory(prefix="bench-start-") as data:
        port = free_port()
        command = [binary, "serve", "--data", data, "--listen", f"127.0.0.1:{port}"]
        log = Path(data).with_suffix(".log")
        with open(log, "wb") as out:
            began = time.perf_counter()
            server = subprocess.Popen(command, stdout=out, stderr=out, cwd=data)
        try:
            while not ready("127.0.0.1", port):
                if server.poll() is not None or time.perf_counter() - began > 60:
                    raise RuntimeError(f"not ready:\n{log.read_text()}")
                time.sleep(0.001)
            took = (time.perf_counter() - began) * 1000
            time.sleep(settle)
            return took, resident_mb(server.pid)
        finally:
            server.terminate()
            server.wait(30)
            log.unlink()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--binary", default="bin/tategu")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--settle", type=float, default=30, help="seconds before RSS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-start-") as installed:
        measure(shutil.copy(options.binary, installed), options)
    return 0


def measure(binary: str, options: argparse.Namespace) -> None:
    """Start it some times and print what was seen."""
    times, memory = [], 0.0
    for number in range(1, options.runs + 1):
        last = number == options.runs
        took, memory = run(binary, options.settle if last else 0)
        times.append(took)
        print(f"run {number}: ready after {took:.0f} ms, {memory:.1f} MB", flush=True)
    size = os.path.getsize(binary) / 1e6
    print(f"ready: median {statistics.median(times):.0f} ms over {len(times)} runs")
    print(f"ready_ms={min(times):.0f} rss_mb={memory:.1f} binary_mb={size:.1f}")


if __name__ == "__main__":
    sys.exit(main())
