"""Put in front of sys.path by tategu for the programs it runs.

1. A sitecustomize that the environment has itself still runs.
2. In a workload's own environment, packages of the machine's interpreter are
   out of sight, although pip may install with --user there.
3. Where /gcs cannot be mounted, kfp finds it in the workload's directory.
"""

import os
import sys


def _chain():
    import importlib.machinery
    import importlib.util

    here = os.path.realpath(os.path.dirname(__file__))
    rest = [p for p in sys.path if os.path.realpath(p or os.curdir) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _seclude():
    venv = os.environ.get("TATEGU_VENV")
    if not venv or os.path.realpath(venv) != os.path.realpath(sys.prefix):
        return
    base = os.path.realpath(sys.base_prefix) + os.sep

    def machine(path):
        real = os.path.realpath(path)
        name = os.path.basename(real)
        # Debian keeps system packages below /usr/lib and /usr/local/lib.
        inside = real.startswith(base) or real.startswith("/usr/local/lib/")
        return inside and name in ("site-packages", "dist-packages")

    import site

    user = os.path.realpath(site.getusersitepackages())
    rest = [p for p in sys.path if not machine(p)]
    # As in a container: what was installed with --user wins over what was there.
    late = [p for p in rest if os.path.realpath(p) == user]
    rest = [p for p in rest if os.path.realpath(p) != user]
    at = next((i for i, p in enumerate(rest) if p.endswith("site-packages")), len(rest))
    sys.path[:] = rest[:at] + late + rest[at:]


def _map_gcs():
    if not os.environ.get("TATEGU_GCS_DIR"):
        return
    import importlib.abc
    import importlib.util

    # kfp keeps the mount prefix in a module global, under several package names:
    # kfp.v2.components.types, kfp.components.types, kfp.dsl.types.
    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if not (name.startswith("kfp.") and name.endswith(".types.artifact_types")):
                return None
            sys.meta_path.remove(self)
            try:
                spec = importlib.util.find_spec(name)
            finally:
                sys.meta_path.insert(0, self)
            if spec is None or spec.loader is None:
                return None
            plain = spec.loader.exec_module

            def exec_module(module):
                plain(module)
                if hasattr(module, "_GCS_LOCAL_MOUNT_PREFIX"):
                    # Read now: a forked program has another one than its parent.
                    module._GCS_LOCAL_MOUNT_PREFIX = os.environ["TATEGU_GCS_DIR"] + "/"

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Finder())


_seclude()
_map_gcs()
_chain()
