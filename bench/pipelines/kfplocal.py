"""Runs a compiled pipeline by kfp.local and prints how many seconds that took.

    python kfplocal.py FILE FOLDER [--venv]

Importing kfp is not counted. The last line is the seconds.
"""

import sys
import time
from pathlib import Path

from kfp import components, local


def main() -> None:
    """Run it once."""
    file, folder = sys.argv[1], Path(sys.argv[2])
    local.init(
        local.SubprocessRunner(use_venv="--venv" in sys.argv),
        pipeline_root=str(folder / "root"),
        raise_on_error=True,
    )
    flow = components.load_component_from_file(file)
    began = time.perf_counter()
    flow()
    print(f"\n{time.perf_counter() - began:.6f}", flush=True)


if __name__ == "__main__":
    main()
