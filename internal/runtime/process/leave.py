"""How a warm program ends: as ever, but without taking apart what it was forked with.

The interpreter frees every object at its end. Of a forked process most of them are on
pages that are shared until then, and copying these takes longer than many programs do.
Where nobody could see it, we end without: threads are awaited, exit functions called,
files flushed, and the libraries' own exit functions run (exit(3)). Part of zygote.py.
"""

import atexit
import ctypes
import gc
import io
import itertools
import sys
import types
import weakref

MOST = 200000  # objects to look at: more take as long as freeing them
IMMUTABLE, HEAP = 1 << 8, 1 << 9  # type flags, Include/object.h
# Modules written in C whose objects are memory and no more (mmap is written back by
# the kernel); of packages, all of theirs.
QUIET = frozenset(
    "builtins collections functools itertools operator re _sre datetime decimal _decimal _thread types typing weakref _weakref "
    "_abc _struct _json _random contextvars _contextvars _csv _ast ast mmap _operator _collections _functools _datetime "
    "_frozen_importlib _frozen_importlib_external zipimport importlib string _string ctypes _ctypes array tategu_zygote".split()
)
PACKAGES = frozenset("numpy pandas scipy sklearn _cyutility".split())
KEEPERS = frozenset("weakref _weakrefset functools copyreg typing logging".split())  # whose weak references keep books


def plain(kind):
    """Reports that nobody sees an object of the kind end: it is a class written in
    Python without __del__, or of a C module that we know."""
    for base in kind.__mro__:
        flags, module = base.__flags__, base.__module__
        if "__del__" in base.__dict__ or type(module) is not str:
            return False
        if module in QUIET or module.partition(".")[0] in PACKAGES:
            continue
        if flags & IMMUTABLE or not flags & HEAP:
            return False
        file = getattr(sys.modules.get(module), "__file__", None)
        if module != "__main__" and not (type(file) is str and file.endswith(".py")):
            return False
    return True


def over(thing):
    """Reports the same of one object of a kind that is not plain: it has ended."""
    kind = type(thing)
    if kind is types.GeneratorType:
        return thing.gi_frame is None
    if kind in (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO):
        return thing.closed
    return kind in (io.StringIO, io.BytesIO)


def silent(callback):
    """Reports a weak reference's callback that only keeps books."""
    if callback is None or isinstance(callback, types.BuiltinFunctionType):
        return True
    return getattr(callback, "__module__", None) in KEEPERS


def seen(marker):
    """Reports that the end of something that was made since the fork may be seen.
    What was there before is not among the objects that gc gives."""
    made = gc.get_objects()
    if len(made) > MOST or not any(thing is marker for thing in made):
        return True  # gc.freeze hides them
    loose = set(map(type, itertools.filterfalse(gc.is_tracked, gc.get_referents(*made))))
    if not all(map(plain, loose)):
        return True
    kinds = {kind: plain(kind) for kind in set(map(type, made))}
    for thing in made:
        kind = type(thing)
        if not kinds[kind] and not over(thing):
            return True
        if issubclass(kind, weakref.ref) and not silent(thing.__callback__):
            return True
    return False


def leave(code, marker):
    """Ends the program, unless that has to be done the long way: then the interpreter
    does again what was done here, and finds nothing to do."""
    if sys.version_info < (3, 10):
        return  # exit functions are called in another way
    threading = sys.modules.get("threading")
    try:
        if threading is not None:
            threading._shutdown()
        atexit._run_exitfuncs()
        for file in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):  # the last ones are older than the fork
            if file is not None and not file.closed:
                file.flush()
        if len(sys._current_frames()) == 1 and not seen(marker):
            ctypes.PyDLL(None).exit(code)  # no thread runs Python meanwhile
    except BaseException:
        return
