"""Runs one compiled pipeline by kfp.local, and prints its output parameters.

    python kfplocal.py FILE INPUTS

The line that starts with "outputs: " has a JSON object, or null where kfp.local
cannot run the pipeline.
Its runner without a virtual environment installs into the Python that runs it. A
pip that does nothing keeps that as it is: components run with this kfp, and one
that needs packages of its own cannot run.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def bring_pip(scratch: Path) -> None:
    """Put the pip that does nothing in front, as a module and as a command."""
    module, command = scratch / "modules" / "pip", scratch / "bin" / "pip"
    module.mkdir(parents=True)
    (module / "__main__.py").touch()
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    os.environ["PYTHONPATH"] = str(module.parent)
    os.environ["PATH"] = f"{command.parent}:{os.environ['PATH']}"


def run(path: str, inputs: dict[str, Any], scratch: str) -> dict[str, Any]:
    """Give the output parameters of a pipeline."""
    from kfp import components, dsl, local

    bring_pip(Path(scratch))
    workspace = os.path.join(scratch, "workspace")
    os.mkdir(workspace)
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=os.path.join(scratch, "root"),
        workspace_root=workspace,
        raise_on_error=True,
    )
    given = {
        k: v.replace("@FOLDER@", scratch) if isinstance(v, str) else v
        for k, v in inputs.items()
    }
    task = components.load_component_from_file(path)(**given)

    def parameter(value: Any) -> bool:
        if isinstance(value, list):
            return all(parameter(v) for v in value)
        # A path of the run is different in every run.
        return not isinstance(value, dsl.Artifact) and scratch not in str(value)

    return {k: v for k, v in task.outputs.items() if parameter(v)}


def main() -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory(prefix="kfp-local-") as scratch:
        try:
            answer = run(sys.argv[1], json.loads(sys.argv[2]), scratch)
            print(f"outputs: {json.dumps(answer)}", flush=True)
        except Exception as e:
            print(f"{type(e).__name__}: {e}", file=sys.stderr)
            print("outputs: null", flush=True)


main()
