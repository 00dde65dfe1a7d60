"""The example's section "When a run fails", followed word for word."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server import Server, binary, clean_env
from test_run import started_env

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/supplier-recommendation"
FENCE = re.compile(r"^```(sh)?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def steps():
    """The commands of the section, each with the lines that it says are printed."""
    text = (EXAMPLE / "README.md").read_text()
    section = text.partition("\n## When a run fails\n")[2].partition("\n## ")[0]
    found = []
    for kind, block in FENCE.findall(section):
        if kind:
            found.append((block, []))
        else:
            found[-1][1].extend(block.splitlines())
    return found


def pattern(line):
    """What is printed may have other blanks, and anything for an ellipsis."""
    parts = (r"\s+".join(map(re.escape, p.split())) for p in line.split("…"))
    return r"[^\n]*".join(r"\s*" + p + r"\s*" if p else "" for p in parts)


def test_the_readme_is_right(tmp_path, monkeypatch):
    assert len(steps()) >= 5
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
        for commands, _ in steps():
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
    assert len(outputs) == len(steps()), done.stdout
    for (commands, said), output in zip(steps(), outputs, strict=True):
        for line in said:
            assert re.search(pattern(line), output), f"$ {commands}{output}\n{line!r}"
    # run.py fails with the run; all that the section does about it succeeds.
    assert codes == [1] + [0] * (len(codes) - 1), done.stdout


def importable(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None
