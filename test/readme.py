"""Pages of examples as tests follow them: commands, and the lines that they print."""

import re
from pathlib import Path

FENCE = re.compile(r"^```(sh)?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def steps(page: Path, section: str = "") -> list[tuple[str, list[str]]]:
    """The commands of a page, or of a section of it, each with the lines that it says."""
    text = page.read_text()
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found: list[tuple[str, list[str]]] = []
    for kind, block in FENCE.findall(text):
        if kind:
            found.append((block, []))
        else:
            found[-1][1].extend(block.splitlines())
    return found


def pattern(line: str) -> str:
    """What is printed may have other blanks, and anything for an ellipsis."""
    parts = (r"\s+".join(map(re.escape, p.split())) for p in line.split("…"))
    return r"[^\n]*".join(r"\s*" + p + r"\s*" if p else "" for p in parts)
