"""The parent of warm Python programs: it has imported what they will, and forks.

Run by tategu as `python3 -c BOOT FILE CONTROL SETTINGS PADDING`. CONTROL is a socket
to the server; its end is our end. For each request to come we fork a process that forks
the program and then becomes, by exec, the wrapper that watches it: the program is the
wrapper's own child, as if the wrapper had started it. Both wait; a request is passed on.

Nothing here may stay behind in the program: see docs/adr/0015.
"""

import array
import ctypes
import fcntl
import gc
import importlib
import json
import locale  # argparse wants this one, and shutil
import os
import re
import runpy
import shutil  # noqa: F401
import signal
import socket
import sys
import sysconfig
import time

import _locale

HERE = "<tategu>"
LINK, SELF, CHILD = 3, 4, 5  # descriptors of a wrapper; the second is ours, too
NEWNS, NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
PATIENCE = 60  # seconds for all imports, then SIGALRM ends us


# Modules that keep what variables say when they are imported, in their own globals
# and nowhere else: a program runs their bodies again, with variables of its own.
READERS = {"google.auth.compute_engine._metadata"}


class Watched(dict):
    """The environment while imports run: keeps which names they read. Who walks
    through all of it, as os.environ.copy() does, asks for none of them."""

    read, walk, walked = set(), [], False
    again = set()  # those of READERS that read some

    def __getitem__(self, name):
        body = importing()
        if Watched.walk and Watched.walk[-1] == name:
            Watched.walk.pop()
            Watched.walked = True
        elif body in READERS:
            Watched.again.add(body)
        else:
            Watched.read.add(name)
        return dict.__getitem__(self, name)

    def __iter__(self):
        names = list(dict.keys(self))
        Watched.walk = names[::-1]
        return iter(names)


def importing():
    """The name of the module whose body runs."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return frame and frame.f_globals.get("__name__")


class Unfit(Exception):
    """An import did something that no program may inherit."""


def handlers():
    return [(n, signal.getsignal(n)) for n in sorted(signal.valid_signals())]


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            pass  # that of the list itself
    return found


def state():
    return {
        "descriptors": descriptors(), "signal handlers": handlers(), "signal mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "locale": _locale.setlocale(_locale.LC_ALL), "working directory": os.getcwd(),
        "environment": dict(zip(dict.keys(os.environ._data), dict.values(os.environ._data))),
        "output": os.fstat(1).st_size, "random numbers": random_state(),
    }


def random_state():
    random = sys.modules.get("random")
    return hash(random.getstate()) if random else None


def threads():
    return len(os.listdir("/proc/self/task"))


def alone():
    """Reports that no thread is left. Some libraries (OpenBLAS) end theirs before a
    fork and start them again when they are needed: those get a chance."""
    if threads() == 1:
        return True
    threading = sys.modules.get("threading")
    if threading and threading.active_count() > 1:
        return False
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    for _ in range(50):
        if threads() == 1:
            return True
        time.sleep(0.01)
    return False


def cuda():
    torch = sys.modules.get("torch")
    return bool(torch and hasattr(torch, "cuda") and torch.cuda.is_initialized())


def load(entry):
    """Imports "module" or "module:name", where name may be a module of its own."""
    module, _, name = entry.partition(":")
    loaded = importlib.import_module(module)
    if name and not hasattr(loaded, name):
        try:
            importlib.import_module(module + "." + name)
        except ModuleNotFoundError as e:
            if e.name != module + "." + name:
                raise


class Keepers:
    """Who holds values of private variables: all objects are looked through."""

    plain = (dict, list, tuple, set, frozenset)

    def __init__(self, settings):
        self.own = {id(settings), id(os.environ._data)}
        # A directory that Python itself knows is held for other reasons.
        known = {sys.prefix, sys.exec_prefix, os.getcwd(), *sys.path}
        values = {os.environ.get(name, ""): name for name in settings["Private"]}
        self.names = {value: name for value, name in values.items() if value and value not in known}
        # Of ours and of short ones, such as a port, parts are found everywhere.
        whole = [v for v in self.names if len(v) < 8 or settings["Dir"] in v]
        words = "|".join(r"\A%s\Z" % re.escape(v) if v in whole else re.escape(v) for v in self.names)
        self.text, self.data = re.compile(words), re.compile(os.fsencode(words))
        self.before = set(self.found())

    def found(self, ours=()):
        """The holders' ids, and what each holds."""
        if not self.names:
            return {}
        found, seen, todo = {}, set(), gc.get_objects()
        finders = [f for finder in sys.path_importer_cache.values() for f in (finder, getattr(finder, "__dict__", None))]
        again = [sys.modules[name].__dict__ for name in Watched.again if name in sys.modules]
        own = self.own.union(map(id, (todo, self.names, self.__dict__, sys.path_importer_cache, ours, *finders, *again, *ours)))
        for holder in todo:  # grows
            if id(holder) in own or type(holder) is type(sys._getframe()):
                continue
            for part in gc.get_referents(holder):
                if type(part) in self.plain and not gc.is_tracked(part) and id(part) not in seen:
                    seen.add(id(part))
                    todo.append(part)
                    continue
                pattern = self.text if type(part) is str else self.data if type(part) is bytes else None
                match = pattern and pattern.search(part)
                if match:
                    found[id(holder)] = "%s in a %s" % (self.names[os.fsdecode(match.group())], type(holder).__name__)
        return found

    def new(self, ours):
        """What somebody holds who did not before; ours do not count."""
        return sorted({name for holder, name in self.found(ours).items() if holder not in self.before})


def preload(entry, settings, keepers):
    """Imports and looks at what that did besides. What is not there is left to the
    program, which will say so."""
    before = state()
    Watched.read, Watched.walk, Watched.walked = set(), [], False
    try:
        if entry == REHEARSAL:
            rehearse(settings["Imports"][0], os.path.join(settings["Dir"], "rehearsal"))
            Watched.read = set()  # it keeps nothing of what it reads
        else:
            load(entry)
    except ModuleNotFoundError as e:
        if e.name != entry.partition(":")[0].partition(".")[0]:
            raise Unfit("it fails: %s" % e)
    except BaseException as e:
        raise Unfit("it fails: %s" % e)
    read = sorted(os.fsdecode(n) for n in Watched.read if os.fsdecode(n) in settings["Private"])
    if read:
        raise Unfit("it reads %s, which differs from task to task" % ", ".join(read))
    kept = keepers.new((before, *before.values())) if Watched.walked else []
    if kept:
        raise Unfit("it keeps %s, and that differs from task to task" % ", ".join(kept))
    if not alone():
        raise Unfit("it starts threads")
    if cuda():
        raise Unfit("it initialises CUDA")
    sys.stdout.flush()
    sys.stderr.flush()
    after = state()
    if before["random numbers"] is None:
        before["random numbers"] = after["random numbers"]
    for what in before:
        if before[what] != after[what]:
            raise Unfit("it changes the %s" % what)


def moved(value, old, new):
    """value with the directory old replaced; None = it does not hold it."""
    if type(value) is str and old in value:
        return value.replace(old, new)
    if type(value) is bytes and os.fsencode(old) in value:
        return value.replace(os.fsencode(old), os.fsencode(new))
    return None


def holders(old):
    """Lists where modules keep paths of our own directory: (container, key) pairs."""
    found = []

    def look(container, items):
        for key, value in items:
            if moved(value, old, old) is not None:
                found.append((container, key))

    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if type(names) is not dict:
            continue
        look(names, list(names.items()))
        for name, value in list(names.items()):
            if type(value) is dict and name != "modules":
                look(value, list(value.items()))
            elif type(value) is list:
                look(value, list(enumerate(value)))
    hook = getattr(sys.modules.get("sitecustomize"), "__spec__", None)
    if hook is not None:
        look(hook.__dict__, list(hook.__dict__.items()))
    return found


def area(first):
    """The bytes of /proc/self/cmdline (48, 49) or environ (50, 51), proc_pid_stat(5)."""
    with open("/proc/self/stat", "rb") as f:
        fields = f.read().rpartition(b")")[2].split()
    return int(fields[first - 3]), int(fields[first - 2])


def overwrite(start, size, text):
    memory = os.open("/proc/self/mem", os.O_RDWR)
    os.pwrite(memory, text[: size - 1].ljust(size, b"\0"), start)
    os.close(memory)


def entitle(directory, command, mark, room):
    """Shows to ps and to the search for strays what a cold start would show."""
    start, end = area(48)
    overwrite(start, end - start, b"\0".join(os.fsencode(w) for w in command))
    start, _ = area(50)
    text = os.fsencode(mark + "=" + directory)
    size = len(mark) + 1 + room  # the first variable is all padding
    if len(text) >= size:
        raise OSError("the path of the directory is too long")
    overwrite(start, size, text)


def reseed():
    # random does so by itself at a fork.
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir, tempfile._name_sequence = None, None
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.current_process().authkey = os.urandom(32)
    logging = sys.modules.get("logging")
    if logging is not None and hasattr(logging, "_startTime"):
        logging._startTime = time.time_ns() if isinstance(logging._startTime, int) else time.time()


def unshare(flags):
    """A mount namespace for the wrapper and the program, as clone would make it."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if flags & NEWUSER:
        for name, text in (("setgroups", "deny"), ("uid_map", "0 %d 1" % uid), ("gid_map", "0 %d 1" % gid)):
            with open("/proc/self/" + name, "w") as f:
                f.write(text)


def high(fd):
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20)


def place(fd, at):
    os.dup2(fd, at)
    os.set_inheritable(at, True)


def forget(module):
    """Takes a module out that was imported for what it imports: it is to be __main__."""
    if sys.modules.pop(module, None) is None:
        return
    parent, _, name = module.rpartition(".")
    sys.modules[parent].__dict__.pop(name, None)


class Program:
    """A task in the process that becomes its program. link leads to the process that
    forked it: at first that of our kind, which says what the task is, then the wrapper."""

    def __init__(self, settings, link):
        self.settings, self.link = settings, link

    def wait(self):
        """Puts on what is the same for every task, then waits for one."""
        os.setpgid(0, 0)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != self.link:
                try:
                    os.close(int(name))
                except OSError:
                    pass  # that of the list itself
        link = socket.socket(fileno=self.link)
        request, fds = read_request(link)
        link.detach()
        if request is None:
            os._exit(0)  # nobody needs us any more
        (out,) = fds
        for at in (1, 2):
            place(out, at)
        os.close(out)
        self.dir = request["Dir"]
        with open(os.path.join(self.dir, "spec.json"), "rb") as f:
            self.spec = json.load(f)

    def become(self):
        """Makes everything as a cold start would find it, then waits for the word."""
        command = self.spec["Command"]
        entitle(self.dir, command, self.settings["Mark"], self.settings["Room"])
        old = self.settings["Dir"]
        for container, key in self.settings["Holders"]:
            container[key] = moved(container[key], old, self.dir)
        os.environ.clear()
        for text in self.spec["Env"]:
            name, _, value = text.partition("=")
            os.environ[name] = value
        if self.settings["Locale"]:
            os.environ.setdefault("LC_CTYPE", self.settings["Locale"])
        for path in [p for p in sys.path_importer_cache if old in p]:
            del sys.path_importer_cache[path]
        for name in self.settings["Again"]:
            importlib.reload(sys.modules[name])
        sys.executable = os.path.join(os.path.dirname(sys.executable), command[0])
        reseed()
        os.write(self.link, b"r")
        if os.read(self.link, 1) != b"g":
            os._exit(1)
        os.close(self.link)
        os.chdir(self.spec["Dir"])

    def run(self):
        command = self.spec["Command"]
        main = type(sys)("__main__")
        main.__dict__.clear()
        main.__dict__.update(self.settings["Main"])
        sys.modules["__main__"] = main
        if hasattr(sys, "orig_argv"):
            sys.orig_argv[:] = command
        if command[1] == "-m":
            forget(command[2])
            sys.argv[:] = command[1:2] + command[3:]
            sys.path.insert(0, self.spec["Dir"])
            runpy._run_module_as_main(command[2])
            return
        from importlib.machinery import SourceFileLoader

        path = command[1]
        sys.argv[:] = command[1:]
        sys.path.insert(0, os.path.dirname(path))
        with open(path, "rb") as f:
            source = f.read()
        main.__dict__.update(__file__=path, __cached__=None, __loader__=SourceFileLoader("__main__", path))
        exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)


def read_request(link):
    """One request: its length, with descriptors beside, then JSON. None = the end."""
    size = array.array("i").itemsize
    head, beside, _, _ = link.recvmsg(8, socket.CMSG_SPACE(8 * size))
    fds = array.array("i")
    for level, kind, data in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % size])
    body = head
    while len(body) < 8 or len(body) < 8 + int(body[:8], 16):
        missing = (8 + int(body[:8], 16) if len(body) >= 8 else 8) - len(body)
        part = link.recv(min(missing, 65536)) if body else b""  # the next one is another's
        if not part:
            return None, fds
        body += part
    return json.loads(body[8:]), fds


def send_request(link, request, fds):
    """The other side of read_request."""
    body = json.dumps(request).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    link.sendmsg([b"%08x" % len(body)], rights)
    link.sendall(body)


def pair():
    """Two ends of a socket, out of the way of what a wrapper is given."""
    return tuple(high(end.detach()) for end in socket.socketpair())


class Spare:
    """A wrapper that waits for its task, with its program, which waits, too."""

    def __init__(self, control, settings):
        if threads() != 1 or cuda():
            os._exit(3)  # never fork that
        ours, theirs = socket.socketpair()
        self.link = ours
        if os.fork() == 0:
            control.close()
            ours.close()
            self.link = None
            raise Forked(theirs)
        theirs.close()

    def take(self, request, fds):
        """Hands a task over; False = it has gone."""
        try:
            send_request(self.link, request, fds)
            return True
        except OSError:
            return False
        finally:
            self.link.close()


class Forked(Exception):
    """Raised in a fork: leads out of the loop that forks. Its link brings the task."""

    def __init__(self, link):
        self.link = link


def start(settings, link):
    """In a fork: makes the program and becomes its wrapper. Returns in the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir("/")
    os.setsid()
    if settings["Namespaces"]:
        unshare(settings["Namespaces"])
    ours, theirs = pair()
    pid = os.fork()
    if pid == 0:
        return Program(settings, theirs)
    os.close(theirs)  # so that it ends with us
    control, ours = high(link.detach()), high(ours)
    if settings["Own"]:
        own = high(SELF)
    os.closerange(3, 20)
    place(control, LINK)
    place(ours, CHILD)
    if settings["Own"]:
        place(own, SELF)
    environment = dict(v.partition("=")[::2] for v in settings["Env"])
    os.execve(settings["Path"], settings["Args"] + [str(pid)], environment)


def serve(control, settings):
    """Forks until the server is gone; raises Forked in every fork."""
    while True:
        spare = Spare(control, settings)
        request, fds = read_request(control)
        if request is None:
            os._exit(0)
        if not spare.take(request, fds):  # somebody has ended it
            Spare(control, settings).take(request, fds)
        for fd in fds:
            os.close(fd)


def program(control, settings):
    """Returns in the program of a task."""
    try:
        serve(control, settings)
    except Forked as fork:
        link = fork.link
    try:
        found = start(settings, link)
        link.detach()
        found.wait()
        found.become()
    except BaseException as e:
        os.write(2, ("[tategu] no warm start: %r\n" % e).encode())
        os._exit(70)
    return found


def prepare():
    """Imports everything, and tells the server what came of it."""
    control = socket.socket(fileno=int(sys.argv[2]))
    settings = json.loads(sys.argv[3])
    if settings["Own"]:
        os.set_inheritable(SELF, False)
    names = ("__name__", "__doc__", "__package__", "__loader__", "__spec__", "__annotations__", "__builtins__")
    main = sys.modules["__main__"].__dict__
    settings["Main"] = {n: main[n] for n in names if n in main}
    settings["Locale"] = os.environ.get("LC_CTYPE")  # Python sets it where there is no locale (PEP 538)
    if sys.path and sys.path[0] == "":
        del sys.path[0]
    # As under a wrapper: a server behind nohup ignores these, and its programs do not.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(PATIENCE)
    sysconfig.get_config_vars()  # keeps PYTHONUSERBASE, where we find and replace it
    plain = os.environ._data
    keepers = Keepers(settings)
    os.environ._data = Watched(plain)
    keepers.own.add(id(os.environ._data))
    entry = ""
    try:
        for entry in settings["Imports"]:
            preload(entry, settings, keepers)
    except Unfit as e:
        control.sendall(json.dumps({"Unfit": entry, "Why": str(e)}).encode() + b"\n")
        os._exit(2)
    os.environ._data = plain
    signal.alarm(0)
    settings["Again"] = sorted(Watched.again)
    settings["Holders"] = holders(settings["Dir"])
    with open("/proc/self/statm") as f:
        resident = int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects wrappers
    gc.collect()
    gc.freeze()
    control.sendall(json.dumps({"Ready": True, "Bytes": resident}).encode() + b"\n")
    return control, settings


def bare(error):
    """The traceback without our own frames."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (HERE, "<string>"):
        trace = trace.tb_next
    return trace


made_since = None
try:
    task = program(*prepare())
    made_since = [None]
    task.run()
    leave(0, made_since)
except SystemExit as end:
    if end.code is None or type(end.code) is int:
        leave(end.code or 0, made_since)
    raise
except BaseException as error:
    trace, hook = bare(error), sys.excepthook
    sys.excepthook = lambda kind, value, _: hook(kind, value.with_traceback(trace), trace)
    raise
