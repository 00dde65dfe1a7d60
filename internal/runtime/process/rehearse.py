"""What is done in a zygote so that no program does it first: kfp's executor, for nothing.

Python compiles regular expressions, fills caches and adapts its code to what it sees
when something is done for the first time. Of a forked program all that is lost when it
ends, and each write to it copies a page. Part of zygote.py, which looks afterwards
whether anything else has changed.
"""

import contextlib
import importlib.util
import io
import json
import logging
import os
import runpy
import shutil
import sys

REHEARSAL = "(rehearsal)"  # among the imports
TIMES = 10  # Python adapts code that has run some eight times
COMPONENT = """
import kfp
from kfp import dsl
from kfp.dsl import *
from typing import *

def rehearsal(number: int, text: str, data: Output[Dataset]) -> float:
    return number / 2
"""


def rehearse(kfp, folder):
    """Runs the module kfp as a program would, in a folder that is gone afterwards."""
    os.mkdir(folder)
    try:
        source = os.path.join(folder, "tategu_rehearsal.py")
        with open(source, "w") as f:
            f.write(COMPONENT)
        values = {"number": 1, "text": "a"}
        artifact = {"name": "a", "type": {"schemaTitle": "system.Dataset"}, "uri": folder + "/data", "metadata": {}}
        inputs = {"parameterValues": values, "parameters": {"number": {"intValue": 1}, "text": {"stringValue": "a"}}}
        outputs = {
            "parameters": {"Output": {"outputFile": folder + "/Output"}},
            "artifacts": {"data": {"artifacts": [artifact]}},
            "outputFile": folder + "/executor_output.json",
        }
        text = json.dumps({"inputs": inputs, "outputs": outputs})
        for _ in range(TIMES):
            once(kfp, ["-m", "--component_module_path", source, "--executor_input", text, "--function_to_execute", "rehearsal"])
            os.remove(folder + "/executor_output.json")  # it was there, or this raises
    finally:
        shutil.rmtree(folder)
        for path in [p for p in sys.path_importer_cache if p.startswith(folder)]:
            del sys.path_importer_cache[path]


def once(kfp, argv):
    main, loaded = sys.modules["__main__"], sys.modules.pop(kfp, None)
    path, arguments, bytecode = sys.path[:], sys.argv[:], sys.dont_write_bytecode
    handlers, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers[:] = []
    sys.modules["__main__"] = type(sys)("__main__")
    sys.argv[:], sys.dont_write_bytecode = argv, True
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runpy._run_module_as_main(kfp)
    finally:
        sys.modules["__main__"] = main
        sys.modules.pop("tategu_rehearsal", None)
        if loaded is not None:
            sys.modules[kfp] = loaded
        sys.path[:], sys.argv[:], sys.dont_write_bytecode = path, arguments, bytecode
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
