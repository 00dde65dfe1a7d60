"""Runs the conformance suite of the OCI distribution specification on a fresh server.

    python registry.py [--suite VERSION]

The suite is the specification's own Go program, fetched by `go run`. What it
prints is shown, and the last line is `N passed, N failed`; errors count as
failures.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server, clean_env

SUITE = "github.com/opencontainers/distribution-spec/conformance"
VERSION = "v0.0.0-20260831232431-97274622c111"
COUNT = re.compile(r"^\s+(Pass|FAIL|Error)\.*:\s+(\d+)$")


def main() -> int:
    """Run the suite and sum up what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default=VERSION, help="version of the suite")
    args = parser.parse_args()
    counts = {"Pass": 0, "FAIL": 0, "Error": 0}
    with tempfile.TemporaryDirectory() as scratch, Server(Path(scratch)) as server:
        env = clean_env() | {
            "OCI_REGISTRY": server.address,
            "OCI_TLS": "disabled",
            "OCI_VERSION": "1.1",
            "OCI_RESULTS_DIR": os.path.join(scratch, "results"),
            "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
            "OCI_API_BLOBS_DIGEST_HEADER": "true",
            "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
        }
        run = subprocess.run(
            ["go", "run", f"{SUITE}@{args.suite}"],
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            env=env,
            cwd=scratch,
            timeout=600,
            check=False,
        )
        summary = run.stdout[max(run.stdout.rfind("OCI Conformance Result"), 0) :]
        print(summary, flush=True)
        for line in summary.splitlines():
            if found := COUNT.match(line):
                counts[found[1]] += int(found[2])
    failed = counts["FAIL"] + counts["Error"]
    if run.returncode and not failed or not counts["Pass"]:
        print(f"the suite ended with {run.returncode}", flush=True)
        failed += 1
    print(f"{counts['Pass']} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
