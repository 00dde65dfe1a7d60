"""Serves a custom prediction routine by the SDK's own model server.

Run by tategu inside the sandbox of a replica. The predictor's sources are copied into
the working directory, as an image made by LocalModel.build_cpr_model has them there;
google.cloud.aiplatform.prediction.model_server does the rest, unmodified. What differs
from the image is listed in docs/guide/models.md.
"""

import argparse
import importlib
import inspect
import os
import shutil
import signal
import socket
import sys
import traceback

import google.cloud.aiplatform
import google.cloud.storage
import uvicorn
import uvicorn.protocols.http.httptools_impl
import uvloop
from google.cloud.aiplatform.prediction import handler, model_server, predictor


class RoutineError(Exception):
    """The sources cannot be served."""


def read_arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--source", help="the directory of the sources")
    p.add_argument("--uri", help="what people call it")
    p.add_argument("--port", type=int)
    p.add_argument("--workers", type=int, help="processes that predict")
    return p.parse_args()


def place(a):
    """Copies the sources into the working directory, and makes them importable."""
    shutil.copytree(a.source, ".", dirs_exist_ok=True, copy_function=shutil.copyfile)
    importlib.invalidate_caches()  # an import may have looked here already
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def only_predictor(a, name):
    """The name of the one Predictor that the module defines."""
    try:
        module = __import__(name, fromlist=["*"])
    except ModuleNotFoundError as e:
        if e.name == name:
            raise RoutineError("there is no module %s in %s: set PREDICTOR_MODULE and PREDICTOR_CLASS" % (name, a.uri)) from None
        raise
    found = [
        n for n, c in vars(module).items()
        if inspect.isclass(c) and issubclass(c, predictor.Predictor) and c.__module__ == module.__name__ and not inspect.isabstract(c)
    ]
    if len(found) != 1:
        raise RoutineError("the module %s in %s defines %s: set PREDICTOR_CLASS" % (name, a.uri, "several Predictors, " + " and ".join(found) if found else "no Predictor"))
    return found[0]


def complete(a, env):
    """Sets what an image would have been built with, where the model does not say it."""
    env.setdefault("HANDLER_MODULE", handler.__name__)
    env.setdefault("HANDLER_CLASS", "PredictionHandler")
    own = env["HANDLER_MODULE"] != handler.__name__
    if not own or "PREDICTOR_MODULE" in env or "PREDICTOR_CLASS" in env:
        env.setdefault("PREDICTOR_MODULE", "predictor")
        if "PREDICTOR_CLASS" not in env:
            env["PREDICTOR_CLASS"] = only_predictor(a, env["PREDICTOR_MODULE"])


def workers(a, env):
    """How many processes: VERTEX_CPR_WEB_CONCURRENCY, or so many for each core."""
    said = env.get("VERTEX_CPR_WEB_CONCURRENCY")
    if said:
        return max(1, int(said))
    n = max(1, int(float(env.get("VERTEX_CPR_WORKERS_PER_CORE", "1")) * a.workers))
    most = env.get("VERTEX_CPR_MAX_WORKERS")
    return min(n, int(most)) if most else n


def serve(listener, shared):
    app = model_server.CprModelServer()
    # A prediction occupies its process. With several, each request takes whichever is
    # free, so no connection is kept to one of them.
    headers = [("connection", "close")] if shared else []
    config = uvicorn.Config(app, log_level="warning", access_log=False, headers=headers, lifespan="off", timeout_graceful_shutdown=None)
    uvicorn.Server(config).run(sockets=[listener])


def work(listener):
    """A process of several; ends it."""
    code = 1
    try:
        serve(listener, True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main():
    a = read_arguments()
    env = os.environ
    place(a)
    complete(a, env)
    n = workers(a, env)
    listener = socket.create_server(("127.0.0.1", a.port), backlog=1024)
    print("serving %s.%s of %s with google-cloud-aiplatform %s, %d processes" % (
        env.get("PREDICTOR_MODULE", env["HANDLER_MODULE"]), env.get("PREDICTOR_CLASS", env["HANDLER_CLASS"]), a.uri, google.cloud.aiplatform.__version__, n), flush=True)
    if n == 1:
        serve(listener, False)
        return 0
    children = set()
    for _ in range(n):
        pid = os.fork()
        if pid == 0:
            work(listener)
        children.add(pid)

    def stop(*_):
        for pid in children:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass  # it has just ended

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    first = None
    while children:
        pid, status = os.wait()
        children.discard(pid)
        if first is None:
            first = os.waitstatus_to_exitcode(status)
            stop()  # one that fails ends all: the replica starts anew
    return first if first >= 0 else 128 - first


if __name__ == "__main__":
    sys.exit(main())
