"""The example's section "When a run fails", followed word for word."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from readme import pattern, steps
from server import Server, binary, clean_env
from test_run import started_env

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/supplier-recommendation"
SECTION = "When a run fails"


def test_the_readme_is_right(tmp_path, monkeypatch):
    section = steps(EXAMPLE / "README.md", SECTION)
    assert len(section) >= 5
    missing = [m for m in ("lightgbm", "pandas", "kfp") if not importable(m)]
    if missing or not shutil.which("uv", path=started_env()["PATH"]):
        pytest.skip(f"uv, or a package, is missing: {missing}")
    # As a person has it who starts a server: without the clients' own variables.
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in started_env().items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    with Server(tmp_path) as server:
        # One shell, so that variables last, and a line between the outputs.
        lines = ["exec 2>&1"]
        for commands, _ in section:
            lines += [commands, "code=$?; echo; echo '=====' $code"]
        tools = f"{Path(binary()).parent}:{Path(sys.executable).parent}"
        env = {
            **clean_env(),
            "PATH": f"{tools}:{os.environ['PATH']}",
            "TATEGU_DATA": str(server.data),
        }
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            timeout=900,
            check=True,
        )
    parts = re.split(r"^===== (\d+)\n", done.stdout, flags=re.MULTILINE)
    outputs, codes = parts[0:-1:2], [int(c) for c in parts[1::2]]
    assert len(outputs) == len(section), done.stdout
    for (commands, said), output in zip(section, outputs, strict=True):
        for line in said:
            assert re.search(pattern(line), output), f"$ {commands}{output}\n{line!r}"
    # run.py fails with the run; all that the section does about it succeeds.
    assert codes == [1] + [0] * (len(codes) - 1), done.stdout


def importable(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None
