"""The parent of TorchServe workers: it has loaded torch and ts, and forks.

Run by tategu as `python -c BOOT SOURCE CONTROL SHORTCUT`. CONTROL is a socket to the
server, of whole messages; its end is our end, and ours is the end of every worker. Each
request is JSON with three descriptors beside it: for all that the worker prints, and
the two of its leash (leash.go). We answer
{"ID", "PID"}, and {"ID", "Ended"} with the wait status once it has ended. SHORTCUT is
the source of shortcut.py, or empty.

No thread may run here and CUDA may not be initialised: a fork would inherit locks
that nobody opens, and a context that no fork may use.
"""

import array
import ctypes
import gc
import importlib
import json
import logging
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time

# What workers import first, and what the handlers of the package import; of those
# any that is not installed is left out.
NEEDED = ("torch", "ts.model_service_worker")
WANTED = ("numpy", "ts.torch_handler.base_handler", "ts.torch_handler.vision_handler", "ts.handler_utils.utils")

PR_SET_PDEATHSIG = 1  # linux/prctl.h

PASSED_OVER = struct.pack("!iii", 299, 0, -1)  # the answer to a request without a permit


def threads():
    return len(os.listdir("/proc/self/task"))


def alone():
    """Says that no thread is left. OpenBLAS ends its own before a fork and starts them
    again when they are needed: it gets that chance."""
    if threads() == 1:
        return True
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    for _ in range(100):
        if threads() == 1:
            return True
        time.sleep(0.01)
    return False


def cuda():
    """Says that CUDA was touched. A look for GPUs (torch.cuda.is_available) initialises
    the driver, which torch does not count, and leaves its devices open."""
    if sys.modules["torch"].cuda.is_initialized():
        return True
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + name).startswith("/dev/nvidia"):
                return True
        except FileNotFoundError:
            pass  # that of the list itself
    return False


def touches(name):
    """Tries an import in a fork: whether it touches CUDA, as ts's base handler does
    where there is a GPU. That one fails is told by the import itself."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            importlib.import_module(name)
        finally:
            os._exit(1 if cuda() else 0)
    return os.waitpid(pid, 0)[1] != 0


def load():
    for name in NEEDED:
        importlib.import_module(name)
    if cuda():
        raise RuntimeError("an import initialises CUDA")
    if not alone():
        raise RuntimeError("an import starts threads")
    for name in WANTED:
        if touches(name):
            print("%s is left to the workers: it initialises CUDA" % name, flush=True)
            continue
        try:
            importlib.import_module(name)
        except Exception as e:  # a handler that needs it will say so
            print("%s is left out: %s" % (name, e), flush=True)
    if cuda():
        raise RuntimeError("an import initialises CUDA")
    if not alone():
        raise RuntimeError("an import starts threads")


def shorten(source):
    """Puts the shorter ways of the package's functions in; says why not."""
    if not source:
        return ""
    try:
        names = {"__name__": "tategu_shortcut"}
        exec(compile(source, "<tategu shortcut>", "exec"), names)
        return names["install"]()
    except Exception as e:
        return "%s: %s" % (type(e).__name__, e)


def hold(page, permits):
    """Puts the leash between the worker and each of its messages. A permit is taken for
    it, by us or by the server, which then has it run elsewhere."""
    package, torch = sys.modules["ts.model_service_worker"], sys.modules["torch"]
    stock = getattr(package, "retrieve_msg", None)
    if stock is None:  # another package: the server sees that no permit is taken
        return
    wanted = mmap.mmap(page, 1, prot=mmap.PROT_READ)
    seen = ours = wanted[0]

    def retrieve_msg(conn):
        nonlocal seen, ours
        while True:
            found = stock(conn)
            if wanted[0] != seen:
                seen = wanted[0]
                if torch.get_num_threads() == ours:  # else the handler has its own number
                    torch.set_num_threads(seen)
                    ours = seen
            try:
                os.read(permits, 8)
            except BlockingIOError:
                conn.sendall(PASSED_OVER)
                continue
            return found

    package.retrieve_msg = retrieve_msg


def become(request, fds, parent):
    """Makes the fork what a worker that was started plainly would be, and runs it."""
    os.setsid()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null = os.open(os.devnull, os.O_RDONLY)
    out, page, permits = fds
    for fd, at in ((null, 0), (out, 1), (out, 2)):
        os.dup2(fd, at)
    first = 3
    for fd in sorted((page, permits)):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 1 << 16)
    os.environ.clear()
    for text in request["Env"]:
        name, _, value = text.partition("=")
        os.environ[name] = value
    os.chdir(request["Dir"])
    sys.path[:0] = request["Path"]
    sys.argv[:] = [request["Home"] + "/model_service_worker.py"]
    for name in ("random", "numpy.random"):
        if name in sys.modules:
            sys.modules[name].seed()
    if request["Threads"] > 0:
        sys.modules["torch"].set_num_threads(request["Threads"])
    if not request["Async"]:  # such a worker reads requests another way
        hold(page, permits)
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    worker = sys.modules["ts.model_service_worker"].TorchModelServiceWorker("unix", request["Socket"], None, None, request["Metrics"], request["Async"])
    try:
        worker.run_server()
    except Exception:
        logging.error("Backend worker process died.", exc_info=True)
    sys.exit(1)


def receive(control):
    size = array.array("i").itemsize
    data, beside, _, _ = control.recvmsg(1 << 20, socket.CMSG_SPACE(4 * size))
    fds = array.array("i")
    for level, kind, rights in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(rights[: len(rights) - len(rights) % size])
    return (json.loads(data) if data else None), fds


def reap(control, running):
    while running:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return
        try:
            os.killpg(found.si_pid, signal.SIGKILL)  # what it started goes with it
        except ProcessLookupError:
            pass
        pid, status = os.waitpid(found.si_pid, 0)
        if pid in running:
            control.send(json.dumps({"ID": running.pop(pid), "Ended": True, "Status": status}).encode())


def serve(control):
    running = {}  # process id -> id of the start
    wake, told = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while True:
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            reap(control, running)
        if control not in ready:
            continue
        request, fds = receive(control)
        if request is None:
            os._exit(0)
        if "Kill" in request:
            for pid, id in running.items():
                if id == request["Kill"]:
                    try:
                        os.killpg(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        os.kill(pid, signal.SIGKILL)  # not yet in its group; not reaped, so it is ours
            continue
        sys.stdout.flush()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as e:  # no process or no memory is left: the workers that run go on
            os.write(fds[0], ("no worker can be forked: %s\n" % e).encode())
            for fd in fds:
                os.close(fd)
            control.send(json.dumps({"ID": request["ID"], "Ended": True, "Status": 1 << 8}).encode())
            continue
        if pid == 0:
            signal.set_wakeup_fd(-1)
            control.detach()
            return request, fds, parent
        running[pid] = request["ID"]
        for fd in fds:
            os.close(fd)
        control.send(json.dumps({"ID": request["ID"], "PID": pid}).encode())


def main():
    control = socket.socket(fileno=int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.path and sys.path[0] == "":
        del sys.path[0]
    try:
        load()
    except BaseException as e:
        control.send(json.dumps({"Unfit": "%s: %s" % (type(e).__name__, e)}).encode())
        os._exit(2)
    stock = shorten(sys.argv[3])
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"Ready": True, "Stock": stock}).encode())
    return serve(control)


become(*main())
