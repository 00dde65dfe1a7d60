"""The README of examples/similar-drawings, word for word, with three families."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from readme import pattern, steps
from server import Server, binary, clean_env

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/similar-drawings"
FEWER = "--families bootstrap mdi tabler --steps 200"
LAST = re.compile(
    r"^similar-drawings: ok drawings=(\d+) hit10=(0\.\d+) raw_pixels_hit10=(0\.\d+) ", re.MULTILINE
)


class Page(HTMLParser):
    """Counts drawings, and what a page would fetch."""

    def __init__(self):
        super().__init__()
        self.drawings, self.hits, self.outside = 0, 0, []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.drawings += tag == "img"
        self.hits += given.get("class") == "hit"
        for name in ("src", "href"):
            if not given.get(name, "data:").startswith("data:"):
                self.outside.append(given[name])


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example's folder, with what npm and cargo fetch there already."""
    for tool in ("npm", "cargo", "uv"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("example") / "similar-drawings"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("target", "similar.html"))
    fetched = subprocess.run(
        ["cargo", "fetch", "--locked", "--quiet"], cwd=folder, capture_output=True, text=True, check=False
    )
    if fetched.returncode:
        pytest.skip(f"cargo has not the crates: {fetched.stderr[-300:]}")
    return folder


def test_the_readme(example, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    # The clients are there: pip has nothing to do.
    for name, words in (("python", '"$@"'), ("pip", "-c pass")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore {words}\n')
        (tools / name).chmod(0o755)
    with Server(tmp_path) as server:
        env = {
            **clean_env(),
            "PATH": f"{tools}:{Path(binary()).parent}:{os.environ['PATH']}",
            "TATEGU_DATA": str(server.data),
        }
        # One shell, so that variables last, and a line between the outputs.
        lines = ["set -e; exec 2>&1"]
        for commands, _ in steps(EXAMPLE / "README.md"):
            lines += [commands.replace("python run.py", f"python run.py {FEWER}"), "echo; echo ====="]
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=example,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            timeout=1800,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    outputs = done.stdout.split("=====\n")
    pages = steps(EXAMPLE / "README.md")
    assert len(outputs) == len(pages) + 1 and len(pages) >= 5
    for (commands, said), output in zip(pages, outputs, strict=False):
        for line in said:
            assert re.search(pattern(line), output), f"$ {commands}{output}\n{line!r}"
    for drawings, hit, raw in LAST.findall(done.stdout):
        assert int(drawings) > 15000
        assert float(hit) > float(raw) > 0.1
        print(f"drawings={drawings} hit10={hit} raw_pixels_hit10={raw}")
    assert len(LAST.findall(done.stdout)) == 2
    page = Page()
    page.feed((example / "similar.html").read_text())
    assert page.drawings > 250 and page.hits > 10 and page.outside == []


def test_without_npm_it_says_so(example, tmp_path):
    """What is missing is named, with what it is for."""
    (tmp_path / "python").symlink_to(sys.executable)
    with Server(tmp_path) as server:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "run.py", "--cache", tmp_path / "cache"],
            cwd=example,
            env={**server.env("--intercept"), "PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1
    assert "similar-drawings: failed: npm is not installed: it fetches the drawings" in done.stderr
