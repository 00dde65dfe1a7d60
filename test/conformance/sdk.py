"""Runs unmodified system tests of the Python client against a fresh server.

    python sdk.py --dir FOLDER [--only "test_a test_b"]

FOLDER holds a tests package; every test_*.py below it, or those named, runs in a
pytest of its own. What the tests read from the cloud's sample buckets is seeded: models
are trained on the spot, all else is a stand-in. Git finds the client's repository, which
a job installs from, in the source package of the client that is installed here. A job
that asks for a Python that this machine lacks runs with another.
The last line is `N passed, N failed`.
"""

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server

PROJECT = "p"
SAMPLE = re.compile(r"gs://(cloud-samples-data[\w.-]*)/([^\"'\s]+)")


@dataclass(frozen=True)
class Counts:
    """How the tests of one file ended."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


def find(folder: Path, only: list[str]) -> list[Path]:
    """Test files below a folder; a name that is not there is an error."""
    files = {path.stem: path for path in sorted(folder.rglob("test_*.py"))}
    if not only:
        return list(files.values())
    if missing := [name for name in only if name not in files]:
        raise SystemExit(f"{folder} has no {', '.join(missing)}")
    return [files[name] for name in only]


def samples(folder: Path) -> set[tuple[str, str]]:
    """Sample objects that any file of the folder names, as (bucket, object)."""
    return {
        match
        for path in folder.rglob("*.py")
        for match in SAMPLE.findall(path.read_text())
    }


def seed(server: Server, folder: Path) -> None:
    """Make small objects where the tests look for samples."""
    wanted = samples(folder)
    for bucket in {bucket for bucket, _ in wanted}:
        server.make_bucket(PROJECT, bucket)
    for bucket, name in wanted:
        xgboost = name.endswith("/model.bst")
        server.put(bucket, name, booster() if xgboost else b"a stand-in for a sample\n")


def booster() -> bytes:
    """A model of three classes over four features, as that of the iris sample."""
    import numpy as np
    import xgboost

    rng = np.random.default_rng(1)
    x = rng.normal(size=(150, 4))
    y = np.digitize(x[:, 0] + x[:, 1], [-0.5, 0.5])
    params = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    model = xgboost.train(params, xgboost.DMatrix(x, label=y), 5)
    return bytes(model.save_raw("ubj"))


REPOSITORY = "https://github.com/googleapis/python-aiplatform"


def serve_repository(scratch: Path) -> bool:
    """Let git find REPOSITORY in a repository made of the client's source package.

    It is found by the configuration in a home of its own, which jobs share.
    """
    uvx, git = shutil.which("uvx"), shutil.which("git")
    if uvx is None or git is None:
        return False
    version = importlib.metadata.version("google-cloud-aiplatform")
    command = [uvx, "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += [f"google-cloud-aiplatform=={version}", "--dest", str(scratch)]
    if subprocess.run(command, check=False).returncode:
        return False
    (package,) = scratch.glob("google_cloud_aiplatform-*.tar.gz")
    with tarfile.open(package) as tar:
        tar.extractall(scratch, filter="data")
    tree = scratch / package.name.removesuffix(".tar.gz")
    home = scratch / "home"
    home.mkdir()
    before = Path.home()
    os.environ.setdefault("UV_CACHE_DIR", str(before / ".cache" / "uv"))
    if (before / ".pyenv").is_dir():  # its shims look for it there
        os.environ.setdefault("PYENV_ROOT", str(before / ".pyenv"))
    os.environ["HOME"] = str(home)
    (home / ".gitconfig").write_text(
        f'[url "file://{tree}"]\n\tinsteadOf = {REPOSITORY}\n'
        "[user]\n\tname = t\n\temail = t@invalid\n"
    )
    for words in (["init", "-q", "-b", "main"], ["add", "-A", "-f"], ["commit", "-q", "-m", version]):
        subprocess.run([git, *words], cwd=tree, check=True)
    return True


def config() -> str:
    """Python images run with a Python that is here."""
    rule = '  - match: "{0}"\n    python: "{1}"\n    python.match: any\n'
    return "images:\n" + rule.format("python:3.9*", "3.9")


def count(report: Path) -> Counts:
    """Read pytest's JUnit report; an error in set-up or tear-down is a failure."""
    passed = failed = skipped = 0
    for case in ET.parse(report).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return Counts(passed, failed, skipped)


def run_file(
    path: Path, folder: Path, env: dict[str, str], scratch: Path, timeout: float
) -> Counts:
    """Run the tests of one file."""
    report = scratch / f"{path.stem}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(folder), f"--junitxml={report}", str(path)]
    print(f"== {path.stem}", flush=True)
    try:
        subprocess.run(command, env=env, cwd=scratch, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        print(f"{path.stem}: no end within {timeout:.0f} s", flush=True)
        return Counts(failed=1)
    return count(report) if report.exists() else Counts(failed=1)


def main() -> int:
    """Run the files and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--only", default="", help="names of test files, no .py")
    parser.add_argument("--timeout", type=float, default=600, help="seconds a file")
    options = parser.parse_args()
    folder = options.dir.resolve()
    files = find(folder, options.only.split())
    results: list[Counts] = []
    with tempfile.TemporaryDirectory(prefix="conformance-sdk-") as scratch:
        if any(REPOSITORY in path.read_text() for path in files):
            if not serve_repository(Path(scratch)):
                files = [p for p in files if REPOSITORY not in p.read_text()]
                print("skip  tests that install from the client's repository: its source package, uvx or git is missing")
        with Server(Path(scratch), config()) as server:
            seed(server, folder)
            env = server.env("--intercept")
            env.update(
                BUILD_SPECIFIC_GCLOUD_PROJECT=PROJECT, PYTHONDONTWRITEBYTECODE="1"
            )
            for path in files:
                results.append(
                    run_file(path, folder, env, Path(scratch), options.timeout)
                )
            if any(counts.failed for counts in results):
                print(server.log.read_text(errors="replace")[-4000:], file=sys.stderr)
    passed = sum(counts.passed for counts in results)
    failed = sum(counts.failed for counts in results)
    if skipped := sum(counts.skipped for counts in results):
        print(f"{skipped} skipped")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
