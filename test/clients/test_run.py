"""`tategu run`: a folder becomes a custom job, whose output and end are one's own."""

import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
from google.cloud import aiplatform

from server import Server, binary, clean_env

TRAIN = """
import os, sys
import helper, six
print(helper.name, six.__version__, *sys.argv[1:])
with open(os.environ["AIP_MODEL_DIR"].replace("gs://", "/gcs/") + "model.txt", "w") as f:
    f.write("weights")
sys.exit(3)
"""

# Says a line, waits for a file, says another one.
WAITS = """#!/bin/sh
echo first
while [ ! -e "$1" ]; do sleep 0.05; done
echo last
"""


def started_env():
    """The variables pytest was started with: tools are found by them."""
    entries = Path("/proc/self/environ").read_text().split("\0")
    return dict(e.partition("=")[::2] for e in entries if "=" in e)


def start(server, args, cwd, variables=None, **more):
    """Start `tategu ARGS` in a folder."""
    env = {**clean_env(), "TATEGU_DATA": str(server.data), **(variables or {})}
    return subprocess.Popen(
        [binary(), *args],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def tategu(server, *args, cwd=".", **variables):
    """Run `tategu ARGS` in a folder to its end."""
    with start(server, args, cwd, variables) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def job_name(err):
    """The resource name in what run says."""
    lines = [line for line in err.splitlines() if line.startswith("tategu: job ")]
    return lines[0].removeprefix("tategu: job ")


def script(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_python_with_a_module_and_packages(server, mode, bucket, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "helper.py").write_text("name = 'beside'\n")
    (tmp_path / "requirements.txt").write_text("six==1.16.0  # pinned\n")
    options = ["--requirements", "requirements.txt", "--python", "3.11"]
    options += ["--output", f"gs://{bucket.name}/out", "--name", "by-hand"]
    project = ["--project", "p"]
    code, out, err = tategu(
        server, "run", *options, *project, "--", "python", "train.py", "-x", cwd=tmp_path
    )
    assert (code, out.splitlines()[-1]) == (3, "beside 1.16.0 -x"), err
    assert bucket.blob("out/model/model.txt").download_as_bytes() == b"weights"
    job = aiplatform.CustomJob.get(job_name(err))
    assert job.display_name == "by-hand"
    assert job.state.name == "JOB_STATE_FAILED"
    assert "exit code 3" in job.error.message
    # The same folder and packages: nothing is sent, and the environment is there.
    code, out, err = tategu(
        server, "run", "-q", *options, *project, "--", "train.py", "-y", cwd=tmp_path
    )
    assert (code, out) == (3, "beside 1.16.0 -y\n"), err


def test_output_is_live_and_ctrl_c_cancels(server, mode, tmp_path):
    script(tmp_path, "waits.sh", WAITS)
    go = tmp_path / "go"
    args = ("run", "--project", "p", "--", "waits.sh", str(go))
    with start(server, args, tmp_path) as process:
        assert process.stdout.readline() == "first\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert aiplatform.CustomJob.get(job_name(err)).state.name == "JOB_STATE_CANCELLED"


def test_survives_a_killed_server(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    script(folder, "waits.sh", WAITS)
    go = tmp_path / "go"
    first = Server(tmp_path)
    try:
        args = ("run", "--", "waits.sh", str(go))
        process = start(first, args, folder)
        assert process.stdout.readline() == "first\n"
        first.process.kill()
        first.process.wait()
        first.log.rename(tmp_path / "first.log")
        go.touch()
        with Server(tmp_path):
            out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "last\n"), err
        assert "the server does not answer" in err
    finally:
        first.stop()


def test_static_go_program(server, tmp_path):
    env = started_env()
    go = shutil.which("go", path=env.get("PATH"))
    if go is None:
        pytest.skip("go is not on this machine")
    (tmp_path / "main.go").write_text(
        'package main\nimport ("fmt"; "os")\n'
        'func main() { fmt.Println("go", os.Args[1]); os.Exit(5) }\n'
    )
    subprocess.run(
        [go, "build", "-o", "program", "main.go"],
        cwd=tmp_path,
        env={**env, "CGO_ENABLED": "0", "GOPROXY": "off", "GOFLAGS": ""},
        check=True,
    )
    binaries_run(server, tmp_path, "go", 5)


def test_rust_program(server, tmp_path):
    env = started_env()
    rustc = shutil.which("rustc", path=env.get("PATH"))
    if rustc is None:
        pytest.skip("rustc is not on this machine")
    (tmp_path / "main.rs").write_text(
        'fn main() { println!("rust {}", std::env::args().nth(1).unwrap()); '
        "std::process::exit(6) }\n"
    )
    build = [rustc, "-o", "program", "-C", "target-feature=+crt-static", "main.rs"]
    subprocess.run(build, cwd=tmp_path, env=env, check=True)
    binaries_run(server, tmp_path, "rust", 6)


def binaries_run(server, folder, says, ends):
    """Run folder/program as it is, and as an image from scratch."""
    code, out, err = tategu(server, "run", "-q", "--", "program", "one", cwd=folder)
    assert (code, out) == (ends, f"{says} one\n"), err
    name = f"run/{says}-{uuid.uuid4().hex[:8]}:v1"
    made = tategu(server, "image", "build", "program", "-t", name, cwd=folder)
    assert made[0] == 0, made
    code, out, err = tategu(server, "image", "run", "-q", name, "two", cwd=folder)
    assert (code, out) == (ends, f"{says} two\n"), err
    # With a folder on top of the image, as its working directory.
    (folder / "more").mkdir()
    os.link(folder / "program", folder / "more" / "other")
    args = ("run", "-q", "--image", name, "--folder", "more", "--", "other", "three")
    code, out, err = tategu(server, *args, cwd=folder)
    assert (code, out) == (ends, f"{says} three\n"), err
