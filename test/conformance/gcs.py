"""Runs probes of the storage API against a fresh server.

    python gcs.py --dir FOLDER

Every *.py directly in FOLDER runs as `python PROBE BASE_URL SERVER_PID` on one
server with an empty data directory, prints its lines, and ends with a line
`N passed, N failed`. A probe that ends otherwise counts as a failure. The last
line is the sum.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server

SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed$")


def run_probe(path: Path, server: Server, scratch: Path, timeout: float) -> list[int]:
    """Run one probe, show what it prints, and give its passes and failures."""
    print(f"== {path.name}", flush=True)
    env = server.env() | {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(scratch)}
    command = [sys.executable, str(path), f"http://{server.address}"]
    probe = subprocess.Popen(
        [*command, str(server.process.pid)],
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        env=env,
        cwd=scratch,
    )
    watchdog = threading.Timer(timeout, probe.kill)
    watchdog.start()
    last = ""
    try:
        assert probe.stdout is not None
        for line in probe.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
        code = probe.wait()
    finally:
        late = not watchdog.is_alive()
        watchdog.cancel()
    found = SUMMARY.match(last)
    counts = [int(found[1]), int(found[2])] if found else [0, 0]
    if late:
        print(f"{path.name}: no end within {timeout:.0f} s", flush=True)
    elif not found:
        print(f"{path.name}: exit {code}, and no line `N passed, N failed`", flush=True)
    if not counts[1] and (not found or code):
        counts[1] = 1
    return counts


def main() -> int:
    """Run the probes and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--timeout", type=float, default=600, help="seconds a probe")
    options = parser.parse_args()
    probes = sorted(options.dir.resolve().glob("*.py"))
    if not probes:
        raise SystemExit(f"{options.dir} has no *.py")
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="conformance-gcs-") as folder:
        scratch = Path(folder)
        with Server(scratch) as server:
            for path in probes:
                counts = run_probe(path, server, scratch, options.timeout)
                passed, failed = passed + counts[0], failed + counts[1]
            if failed:
                print(server.log.read_text(errors="replace")[-4000:], file=sys.stderr)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
