"""`tategu debug` on Python components of kfp, and the run that goes on after it."""

import json
import re
import socket
import subprocess
import uuid

import pytest
from google.cloud import aiplatform
from kfp import compiler, dsl

from test_run import start, tategu


@dsl.component(base_image="python:3.11")
def make(n: int, table: dsl.Output[dsl.Dataset]) -> int:
    with open(table.path, "w") as f:
        f.write(f"row {n}")
    return n


@dsl.component(base_image="python:3.11", packages_to_install=["six==1.16.0"])
def use(n: int, table: dsl.Input[dsl.Dataset]) -> str:
    import six

    with open(table.path) as f:
        text = f.read()
    print("read", text, six.__version__, flush=True)
    raise ValueError(f"{n} is too much")


@dsl.component(base_image="python:3.11", packages_to_install=["debugpy==1.8.14"])
def stopped(n: int) -> int:
    print("went on", flush=True)
    return n


@dsl.component(base_image="python:3.11")
def report(text: str) -> str:
    return text.upper()


@dsl.pipeline(name="to-debug")
def to_debug(n: int):
    made = make(n=n)
    used = use(n=made.outputs["Output"], table=made.outputs["table"])
    report(text=used.output)
    stopped(n=n)


@pytest.fixture
def failed(mode, bucket, tmp_path):
    """A run whose task use failed."""
    path = str(tmp_path / "pipeline.yaml")
    compiler.Compiler().compile(to_debug, path)
    job = aiplatform.PipelineJob(
        display_name="to-debug",
        job_id=f"job-{uuid.uuid4().hex}",
        template_path=path,
        pipeline_root=f"gs://{bucket.name}/root",
        parameter_values={"n": 7},
        enable_caching=False,
    )
    with pytest.raises(RuntimeError, match="7 is too much"):
        job.run()
    return job


def run_of(err):
    """The run that a command says it made."""
    return re.search(r"run (projects/\S+)", err).group(1)


def ran(name):
    """The tasks of a run that programs were started for."""
    job = aiplatform.PipelineJob.get(name)
    return {
        t.task_name
        for t in job.task_details
        if t.executor_detail.container_detail.main_job
    }


def test_fixed_and_finished(failed, server, tmp_path):
    name = failed.resource_name
    before = {t.task_name: t for t in failed.task_details}

    code, out, err = tategu(server, "debug", name, "use", "--rerun")
    assert code == 1, err
    assert "read row 7 1.16.0\n" in out
    assert "ValueError: 7 is too much" in out
    assert ran(run_of(err)) == {"use"}

    # An editor that corrects the line.
    fix = tmp_path / "fix.sh"
    fix.write_text('sed -i "s/raise ValueError.*/return text/" "$1"; cp "$1" fixed.py')
    debug = ["debug", name, "use", "--edit"]
    code, out, err = tategu(server, *debug, cwd=tmp_path, EDITOR=f"sh {fix}")
    assert code == 0, err
    assert 'output Output: "row 7"' in err
    debugged = run_of(err)
    assert ran(debugged) == {"use"}

    # Nothing of the real run changed.
    after = {t.task_name: t for t in aiplatform.PipelineJob.get(name).task_details}
    assert after["use"] == before["use"]

    code, out, err = tategu(server, "rerun", name, "--edit", "fixed.py", cwd=tmp_path)
    assert code == 0, err
    finished = run_of(err)
    assert ran(finished) == {"use", "report"}, "upstream tasks run again"
    done = {t.task_name: t for t in aiplatform.PipelineJob.get(finished).task_details}
    assert done["report"].execution.metadata["output:Output"] == "ROW 7"


def test_shell(failed, server, tmp_path):
    typed = 'python3 -c "import six; print(six.__version__)"; ./tategu-task; echo $?\n'
    with start(
        server,
        ["debug", failed.resource_name, "use", "--shell"],
        tmp_path,
        stdin=subprocess.PIPE,
    ) as process:
        out, err = process.communicate(typed, timeout=300)
    assert process.returncode == 0, err
    assert out.startswith("1.16.0\n"), out + err
    assert "read row 7 1.16.0\n" in out, out + err
    assert out.endswith("\n1\n")
    assert "ValueError: 7 is too much" in err


class Debugger:
    """As much of the debug adapter protocol as lets a program go on."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=60)
        self.file = self.socket.makefile("rb")
        self.seq = 0

    def send(self, verb, **arguments):
        self.seq += 1
        message = {"seq": self.seq, "type": "request", "command": verb}
        text = json.dumps({**message, "arguments": arguments}).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n" % len(text) + text)

    def until(self, **want):
        while True:
            length = 0
            while line := self.file.readline().strip():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            message = json.loads(self.file.read(length))
            if want.items() <= message.items():
                return message


def test_port(failed, server, tmp_path):
    name = failed.resource_name
    code, out, err = tategu(server, "debug", name, "use", "--port")
    assert code == 1
    assert "debugpy is not in the environment of this component" in out, out + err
    assert "packages_to_install=['debugpy']" in out

    args = ["debug", name, "stopped", "--port"]
    with start(server, args, tmp_path) as process:
        for line in process.stdout:
            if found := re.match(r"tategu: waiting for .* on ([\d.]+):(\d+)", line):
                break
        debugger = Debugger(found.group(1), int(found.group(2)))
        debugger.send("initialize", adapterID="test")
        debugger.until(type="response", command="initialize")
        debugger.send("attach", justMyCode=True)  # empty ones are lost
        debugger.until(type="event", event="initialized")
        debugger.send("setBreakpoints", source={"path": "none.py"}, breakpoints=[])
        debugger.send("configurationDone")
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "went on\n" in out
    assert "output Output: 7" in err
