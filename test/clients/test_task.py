"""`tategu task from`: the component that it prints compiles, and runs the program."""

import importlib.util
import json
import shutil

import pytest
import yaml
from google.cloud import aiplatform
from kfp import compiler, components, dsl

from test_run import script, tategu

SCRIPT = """
import argparse, json
import helper

p = argparse.ArgumentParser()
p.add_argument("name", help="who")
p.add_argument("--epochs", type=int, default=3)
p.add_argument("--rate", type=float)
p.add_argument("--home", default=helper.HOME)
p.add_argument("--text", default='a "b" $HOME *')
p.add_argument("--verbose", action="store_true")
p.add_argument("--quiet", action="store_true")
p.add_argument("--no-cache", dest="cache", action="store_false")
p.add_argument("--color", action=argparse.BooleanOptionalAction, default=True)
p.add_argument("--layer", action="append", default=[])
p.add_argument("--sizes", nargs="+", type=int)
p.add_argument("--data", type=argparse.FileType("r"))
p.add_argument("--report")
a = vars(p.parse_args())
data = a.pop("data")
a["data"] = data and data.read()
with open(a.pop("report"), "w") as f:
    json.dump(a, f)
"""


def load(path):
    """The module of a printed component."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(component, path):
    compiler.Compiler().compile(component, str(path))
    return yaml.safe_load(path.read_text())


def task_from(server, folder, file, *args):
    """The Python and the YAML of a component, which must say the same."""
    name = file.rpartition("/")[2].partition(".")[0]
    for option, suffix in ((), ".py"), (("--yaml",), ".yaml"):
        out = folder.parent / (name + suffix)
        code, _, err = tategu(
            server, "task", "from", file, *args, *option, "--out", str(out), cwd=folder
        )
        assert code == 0, err
    component = getattr(load(folder.parent / f"{name}.py"), name)
    again = compiled(component, folder.parent / "again.yaml")
    printed = yaml.safe_load((folder.parent / f"{name}.yaml").read_text())
    again.pop("sdkVersion")
    printed.pop("sdkVersion")
    assert printed == again
    return component, folder.parent / f"{name}.yaml"


def run(bucket, pipeline, tmp_path):
    package = str(tmp_path / "pipeline.yaml")
    compiler.Compiler().compile(pipeline, package)
    job = aiplatform.PipelineJob(
        display_name="task-from",
        template_path=package,
        pipeline_root=f"gs://{bucket.name}/root",
        enable_caching=False,
    )
    job.run()
    assert job.state.name == "PIPELINE_STATE_SUCCEEDED"


def text_of(bucket, ending):
    """The content of the one object with a name like that."""
    found = [b for b in bucket.client.list_blobs(bucket) if b.name.endswith(ending)]
    assert len(found) == 1, [b.name for b in found]
    return found[0].download_as_bytes().decode()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    return path


@dsl.container_component
def rows(out: dsl.Output[dsl.Artifact]):
    return dsl.ContainerSpec(
        image="python:3.11", command=["sh", "-c", 'printf rows > "$0"'], args=[out.path]
    )


def test_argparse_script(server, bucket, folder, tmp_path):
    (folder / "train.py").write_text(SCRIPT)
    (folder / "helper.py").write_text("HOME = 'of the helper'\n")
    train, _ = task_from(
        server, folder, "train.py", "--arg", "data:in", "--arg", "report:out"
    )

    @dsl.pipeline(name="task-from")
    def pipeline():
        data = rows().outputs["out"]
        train(
            data=data,
            name="somebody",
            rate=0.25,
            verbose=True,
            cache=False,
            color=False,
            layer="one *",
            sizes="1 2 3",
        )

    run(bucket, pipeline, tmp_path)
    assert json.loads(text_of(bucket, "/report")) == {
        "name": "somebody",
        "epochs": 3,
        "rate": 0.25,
        "home": "of the helper",
        "text": 'a "b" $HOME *',
        "verbose": True,
        "quiet": False,
        "cache": False,
        "color": False,
        "layer": ["one", "*"],
        "sizes": [1, 2, 3],
        "data": "rows",
    }


def test_shell_script_with_all_arguments_in_one_text(server, bucket, folder, tmp_path):
    script(folder, "say.sh", '#!/bin/sh\necho "$#: $*" > "$1"\n')
    say, _ = task_from(server, folder, "say.sh")

    @dsl.pipeline(name="task-from")
    def pipeline():
        say(args=f"/gcs/{bucket.name}/said.txt two *")

    run(bucket, pipeline, tmp_path)
    assert text_of(bucket, "said.txt") == f"3: /gcs/{bucket.name}/said.txt two *\n"


def test_compiled_yaml_of_a_program(server, bucket, folder, tmp_path):
    """A binary with declared arguments, loaded from the YAML that needed no Python."""
    shutil.copy("/bin/cp", folder / "copy")
    to = f"--arg=target-directory=/gcs/{bucket.name}"
    _, compiled_to = task_from(
        server, folder, "./copy", to, "--positional", "source:in", "--arg=verbose:bool"
    )
    step = components.load_component_from_file(str(compiled_to))

    @dsl.pipeline(name="task-from")
    def pipeline():
        step(source=rows().outputs["out"], verbose=True)

    run(bucket, pipeline, tmp_path)
    assert bucket.blob("out").download_as_bytes() == b"rows"


def test_files_as_base_image(server, bucket, folder, tmp_path):
    """A lightweight component imports what is in the folder of its base image."""
    (folder / "beside.py").write_text("NAME = 'beside'\n")
    code, out, err = tategu(
        server, "image", "build", ".", "--python", "3.11", "-t", "p/lib:v1", cwd=folder
    )
    assert code == 0, err

    @dsl.component(base_image=out.strip().replace(":v1@", "@"))
    def step(path: str):
        import beside

        with open(path, "w") as f:
            f.write(beside.NAME)

    @dsl.pipeline(name="task-from")
    def pipeline():
        step(path=f"/gcs/{bucket.name}/name.txt")

    run(bucket, pipeline, tmp_path)
    assert text_of(bucket, "name.txt") == "beside"
