"""Where drawings come from: icon families that npm has, and the program that renders.

Families draw the same things in different styles, and mostly give them the same names.
The packages are fetched with npm, whatever registry it is configured for, and kept in
the cache; nothing of them is part of this repository.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

PACKAGES = {
    "bootstrap": "bootstrap-icons@1.13.2",  # MIT
    "lucide": "lucide-static@1.62.0",  # ISC
    "mdi": "@mdi/svg@7.4.47",  # Apache-2.0
    "tabler": "@tabler/icons@3.52.0",  # MIT
}


class Missing(Exception):
    """A tool that the example needs and the machine has not; the text is for the user."""


def tool(name: str, why: str) -> str:
    """Where a program is."""
    if found := shutil.which(name):
        return found
    raise Missing(f"{name} is not installed: {why}")


def run(command: list[str], **options: Any) -> str:
    """Run a program and give what it prints; what it complains about is an error."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise Missing(f"{' '.join(command[:3])} failed:\n{said[-2000:]}")
    return done.stdout


def cache_folder() -> Path:
    """Where packages are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "similar-drawings"


def fetch(family: str, cache: Path) -> Path:
    """Give the package of a family, called FAMILY.tgz, fetching it once."""
    package = PACKAGES[family]
    folder = cache / package.replace("/", "-")
    kept = folder / f"{family}.tgz"
    if not kept.exists():
        npm = tool("npm", "it fetches the drawings (Debian: apt-get install npm)")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            run([npm, "pack", "--silent", "--pack-destination", fresh, package])
            # A rename, so that a run that is stopped half-way leaves nothing behind.
            next(Path(fresh).glob("*.tgz")).rename(kept)
    return kept


def renderer() -> Path:
    """Build the program that renders drawings, and give its path."""
    cargo = tool(
        "cargo", "it builds the program that renders (Debian: apt-get install cargo)"
    )
    run([cargo, "build", "--release", "--locked", "--quiet"], cwd=HERE)
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return HERE / target / "release" / "render-drawings"


def render(path: Path) -> dict[str, Any]:
    """Render one SVG file; give it as a line of what the pipeline's step writes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bitmaps.jsonl"
        run([str(renderer()), "--drawings", str(path), "--bitmaps", str(out)])
        return json.loads(out.read_text())
