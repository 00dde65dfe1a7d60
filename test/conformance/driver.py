"""Runs the step driver over the real Python client, in five ways to reach a server.

    python driver.py --dir FOLDER [--modes "http proxygrpc"]

FOLDER holds driver.py, which prints `OK step time result` or `FAIL ...` for each
step. Every way gets a fresh server whose images run the echo model server. The
last line is `N passed, N failed`.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server, echo_config

MODES = ["http", "tlsrest", "tlsgrpc", "proxyrest", "proxygrpc"]
STEPS = [
    "model_upload",
    "model_version2",
    "endpoint_create",
    "deploy",
    "model_deploy",
    "predict",
    "raw_predict",
    "predict_use_raw",
    "stream_raw",
    "dedicated",
    "undeploy",
    "gapic_rawpredict",
    "pipeline",
    "pipeline_noroot",
    "custom_job",
    "custom_job_script",
    "batch_predict",
    "batch_iter",
    "notfound",
]
# The client sends these to fixed https addresses, which plain http cannot serve.
NOT_OVER_HTTP = {"raw_predict", "predict_use_raw", "stream_raw", "dedicated"}
# Makes the endpoint that gapic_rawpredict uses, so it runs even where its own
# answer is not counted.
ALWAYS_RUN = {"dedicated"}
LINE = re.compile(r"^(OK|FAIL)\s+(\w+)\s+([\d.]+)s ?(.*)$")
INPUT = b'{"a": 1}\n{"a": 2}\n[1, 2, 3]\n'


@dataclass(frozen=True)
class Outcome:
    """What became of one step in one mode."""

    mode: str
    step: str
    passed: bool
    seconds: str
    text: str


def expected(mode: str) -> list[str]:
    """Steps that count in a mode."""
    if mode == "http":
        return [step for step in STEPS if step not in NOT_OVER_HTTP]
    return list(STEPS)


def judge(step: str, verdict: str, text: str) -> bool:
    """Say whether a printed verdict is the wanted one."""
    if step == "notfound":
        return verdict == "FAIL" and text.startswith("NotFound:")
    return verdict == "OK"


def parse(mode: str, output: str, reason: str) -> list[Outcome]:
    """Read the driver's lines; a step without one has failed, for a reason."""
    found: dict[str, Outcome] = {}
    for line in output.splitlines():
        if match := LINE.match(line):
            verdict, step, seconds, text = match.groups()
            passed = judge(step, verdict, text)
            found[step] = Outcome(mode, step, passed, seconds, text)
    return [
        found.get(step, Outcome(mode, step, False, "-", reason))
        for step in expected(mode)
    ]


def client_env(mode: str, server: Server) -> dict[str, str]:
    """The variables that the driver's own description asks for."""
    env = server.env("--intercept") if mode.startswith("proxy") else server.env()
    if mode.startswith("proxy"):
        env.pop("STORAGE_EMULATOR_HOST", None)
    else:
        env.pop("API_ENDPOINT_OVERRIDE", None)
        env["STORAGE_EMULATOR_HOST"] = f"http://{server.address}"
    env.update(MODE=mode, ADDR=server.address)
    return env


def seed(server: Server) -> None:
    """Put there what the steps assume."""
    server.make_bucket("p", "staging")
    server.put("staging", "in.jsonl", INPUT)
    server.put("staging", "model/weights.bin", b"echo needs no weights\n")


def run_mode(folder: Path, mode: str, timeout: float) -> list[Outcome]:
    """Run all steps of a mode against a server of its own."""
    steps = [s for s in STEPS if s in expected(mode) or s in ALWAYS_RUN]
    command = [sys.executable, str(folder / "driver.py"), *steps]
    with (
        tempfile.TemporaryDirectory(
            prefix=f"driver-{mode}-", ignore_cleanup_errors=True
        ) as scratch,
        Server(Path(scratch), echo_config("img*")) as server,
    ):
        seed(server)
        env = client_env(mode, server)
        outcomes = parse(mode, *run_driver(command, env, scratch, timeout))
        if any(not outcome.passed for outcome in outcomes):
            keep_log(mode, server.log)
        return outcomes


def run_driver(
    command: list[str], env: dict[str, str], cwd: str, timeout: float
) -> tuple[str, str]:
    """Run the driver and give its output and why a step may be missing in it."""
    try:
        done = subprocess.run(
            command,
            check=False,
            env=env,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
        text = output.decode() if isinstance(output, bytes) else output
        return text, f"no answer within {timeout:.0f} s"
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return done.stdout, f"not reached, exit code {done.returncode}: {last}"


def keep_log(mode: str, log: Path) -> None:
    """Keep the server's log of a mode with failures."""
    kept = Path(tempfile.gettempdir()) / f"tategu-driver-{mode}.log"
    kept.write_bytes(log.read_bytes())
    print(f"{mode}: the server's log is kept in {kept}", file=sys.stderr)


def print_table(outcomes: list[Outcome], modes: list[str]) -> None:
    """Print one row a step, one column a mode, then each failure's text."""
    by = {(o.step, o.mode): o for o in outcomes}
    print(f"{'step':<20}" + "".join(f"{mode:>14}" for mode in modes))
    for step in STEPS:
        cells = []
        for mode in modes:
            outcome = by.get((step, mode))
            if outcome is None:
                cells.append("-")
            else:
                word = "ok" if outcome.passed else "FAILED"
                cells.append(f"{word} {outcome.seconds}s")
        print(f"{step:<20}" + "".join(f"{cell:>14}" for cell in cells))
    for outcome in outcomes:
        if not outcome.passed:
            print(f"FAILED {outcome.mode} {outcome.step}: {outcome.text}")


def main() -> int:
    """Run the modes and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--modes", default=" ".join(MODES))
    parser.add_argument(
        "--timeout", type=float, default=600, help="seconds for a whole mode"
    )
    parser.add_argument("--jobs", type=int, default=3, help="modes at a time")
    options = parser.parse_args()
    if not (options.dir / "driver.py").is_file():
        print(f"{options.dir} holds no driver.py")
        return 2
    modes = options.modes.split()
    folder = options.dir.resolve()
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = pool.map(lambda mode: run_mode(folder, mode, options.timeout), modes)
        outcomes = [outcome for outcomes in runs for outcome in outcomes]
    print_table(outcomes, modes)
    passed = sum(outcome.passed for outcome in outcomes)
    print(f"{time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {len(outcomes) - passed} failed", flush=True)
    return 0 if passed == len(outcomes) else 1


if __name__ == "__main__":
    os.environ.pop("MODE", None)
    sys.exit(main())
