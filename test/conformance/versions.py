"""Pipelines that old and new versions of kfp compile, run against a fresh server.

Each version has an environment of its own (made here by uv, kept in --folder), in which
versions/v1.py or v2.py compiles a pipeline for each feature that the version has. The
state of each run and the outputs of its tasks are compared with what the pipeline was
written to give. The last line is `N passed, N failed`.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from server import Server

VERSIONS = ["1.8.22", "2.0.1", "2.4.0", "2.7.0", "2.11.0", "2.17.0"]
IMAGES = 'images:\n  - match: "alpine*"\n    command: [env]\n'


def environment(version, folder, python):
    """The Python of an environment with one version of kfp; None = it cannot be made."""
    home = folder / f"kfp-{version}"
    program = home / "bin/python"
    if not (home / "made").exists():
        uv = shutil.which("uv")
        commands = [
            [uv, "venv", "--quiet", "--allow-existing", "--python", python, str(home)],
            [uv, "pip", "install", "--quiet", "--python", str(program)],
        ]
        commands[1] += [f"kfp=={version}"]
        for command in commands:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                print(f"kfp {version}: skipped: {done.stderr.strip()[-300:]}")
                return None
        (home / "made").touch()
    return program


def compiled(version, python, out):
    """Compile the pipelines of a version; give what is expected of each."""
    out.mkdir()
    module = HERE / "versions" / f"v{version.partition('.')[0]}.py"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), str(module), str(out)],
        check=False,
        capture_output=True,
        text=True,
        env=env,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-1500:])
    return json.loads((out / "expected.json").read_text())


def wrong(job, want):
    """What is not as it must be with a run, "" = nothing."""
    state = job.state.name.removeprefix("PIPELINE_STATE_")
    if state != want["state"]:
        return f"it is {state}, not {want['state']}: {job.error.message[:1000]}"
    for task, values in want["outputs"].items():
        done = [
            t
            for t in job.task_details
            if re.fullmatch(re.escape(task) + r"(-\d+)?", t.task_name)
            and t.state.name == "SUCCEEDED"
        ]
        if values is None:
            if not done:
                return f"{task} did not succeed"
            continue
        got = [t.execution.metadata.get("output:Output") for t in done]
        if sorted(map(str, got)) != sorted(str(plain(v, got)) for v in values):
            return f"{task} gave {got}, not {values}"
    return ""


def failed(failures, version, name, why):
    """Tell at once which case failed and why, whatever comes of the others."""
    failures.append(f"kfp {version}, {name}")
    print(f"FAIL kfp {version}, {name}: {str(why)[:1500]}", flush=True)


def plain(value, got):
    """A number as the metadata has it: they are all floats there."""
    floats = any(isinstance(g, float) for g in got)
    return float(value) if floats and isinstance(value, int) else value


def run(version, expected, out, failures):
    """Run the pipelines of a version; give how many passed."""
    from google.cloud import aiplatform

    jobs = {}
    for name in expected:
        jobs[name] = aiplatform.PipelineJob(
            display_name=f"{version} {name}",
            job_id=f"v-{uuid.uuid4().hex}",
            template_path=str(out / name),
            pipeline_root="gs://versions/root",
            enable_caching=False,
        )
        try:
            jobs[name].submit()
        except Exception as err:  # noqa: BLE001 - whatever it is, it is told
            failed(failures, version, name, err)
            jobs[name] = None
    passed = 0
    for name, want in expected.items():
        job = jobs[name]
        if job is None:
            continue
        try:
            job.wait()
        except RuntimeError as err:
            if want["state"] == "SUCCEEDED":
                failed(failures, version, name, err)
                continue
        job = aiplatform.PipelineJob.get(job.resource_name)
        if what := wrong(job, want):
            failed(failures, version, name, what)
        else:
            passed += 1
    return passed


def main():
    parse = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parse.add_argument("--folder", type=Path, required=True, help="of the environments")
    parse.add_argument("--python", default="python3.11")
    parse.add_argument("--only", default="", help="versions, with blanks between them")
    options = parse.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="tategu-versions-"))
    passed, failures, ran = 0, [], 0
    with Server(work, IMAGES) as server:
        started = dict(os.environ)
        os.environ.clear()
        os.environ.update({**server.env("--intercept"), "PATH": started["PATH"]})
        from google.cloud import aiplatform

        aiplatform.init(project="tategu", location="us-central1")
        server.make_bucket("tategu", "versions")
        server.put("versions", "model.txt", b"from outside")
        for version in options.only.split() or VERSIONS:
            python = environment_outside(started, version, options)
            if python is None:
                continue
            out = work / version
            try:
                expected = compiled(version, python, out)
            except RuntimeError as err:
                failed(failures, version, "compile", err)
                continue
            ran += 1
            good = run(version, expected, out, failures)
            passed += good
            print(f"kfp {version}: {good} of {len(expected)} pipelines", flush=True)
    if failures:
        print("failed:", "; ".join(failures), "(the server's data is kept in", f"{work})")
    print(f"{passed} passed, {len(failures) + (not ran)} failed")
    if not failures:
        shutil.rmtree(work)
    sys.exit(bool(failures) or not ran)


def environment_outside(started, version, options):
    """Make an environment with the variables of the caller: packages come from outside."""
    inside = dict(os.environ)
    os.environ.clear()
    os.environ.update(started)
    try:
        return environment(version, options.folder, options.python)
    finally:
        os.environ.clear()
        os.environ.update(inside)


if __name__ == "__main__":
    main()
