"""Runs the storage clients of other languages against a fresh server.

A client whose toolchain is missing is skipped and says so; the last line counts all checks.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server

HERE = Path(__file__).resolve().parent
# Name: the tools it needs, how it is installed, how it is run, flags of `tategu env`.
CLIENTS = [
    ("go", ["go"], [], ["go", "run", "."], []),
    ("node", ["node", "npm"], ["npm", "ci", "--no-audit", "--no-fund", "--silent"], ["node", "probe.js"], []),
    ("node", ["node", "npm"], [], ["node", "probe.js"], ["--intercept"]),
    (
        "java",
        ["java", "mvn"],
        ["mvn", "-q", "-B", "compile", "dependency:build-classpath", "-Dmdep.outputFile=target/classpath"],
        ["sh", "-c", 'exec java -cp "target/classes:$(cat target/classpath)" probe.Probe'],
        [],
    ),
]


def main() -> int:
    """Start a server, drive it with each client, and add up."""
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="tategu-otherclients-") as folder:
        server = Server(Path(folder))
        try:
            for name, tools, install, run, flags in CLIENTS:
                missing = [t for t in tools if not shutil.which(t)]
                if missing:
                    print(f"skip  {name}: {' and '.join(missing)} not installed")
                    continue
                where = HERE / name
                if install:
                    subprocess.run(install, cwd=where, check=True, timeout=300)
                done = subprocess.run(
                    [*run, f"http://{server.address}"], cwd=where, env=server.env(*flags),
                    stdout=subprocess.PIPE, text=True, timeout=600, check=False,
                )  # fmt: skip
                counts = re.search(r"(\d+) passed, (\d+) failed\s*$", done.stdout)
                print(done.stdout[: counts.start()] if counts else done.stdout, end="")
                passed += int(counts[1]) if counts else 0
                failed += int(counts[2]) if counts else 1
        finally:
            server.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
