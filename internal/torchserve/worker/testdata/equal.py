"""Compares the shorter ways of shortcut.py with the package's own functions, over what
chance makes. Run with the source of shortcut.py, a seed and a number of rounds."""

import io
import json
import logging
import os
import random
import socket
import struct
import sys
import threading
import time

import torch
from ts import context, model_service_worker, service
from ts.metrics import caching_metric
from ts.metrics.metric_type_enum import MetricTypes
from ts.protocol import otf_message_handler as otf

chance = random.Random(int(sys.argv[2]))
rounds = int(sys.argv[3])
out = io.StringIO()
logging.basicConfig(stream=out, format="%(message)s", level=logging.INFO)
stock_predict_response, stock_data, stock_emit = service.create_predict_response, service.Service.retrieve_data_for_inference, caching_metric.CachingMetric.emit_metrics
names = {"__name__": "tategu_shortcut"}
with open(sys.argv[1]) as f:
    exec(compile(f.read(), "<tategu shortcut>", "exec"), names)
why = names["install"]()
if why:
    print("skip:", why)
    sys.exit(0)
retrieve_msg, create_predict_response = model_service_worker.retrieve_msg, service.create_predict_response
assert retrieve_msg is not otf.retrieve_msg and create_predict_response is not stock_predict_response, "nothing was put in"
time.time = lambda: 1700000000.25  # of what both say


def told():
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    # Of a traceback, only what it is of.
    return [line for line in text.split("\n") if not line.startswith((" ", "Traceback"))]


def outcome(f, *args):
    try:
        return ("gives", f(*args))
    except Exception as e:
        return ("raises", type(e).__name__, str(e))


# What is sent.


def text():
    kind = chance.randrange(8)
    if kind == 0:
        return b""
    if kind == 1:
        return chance.randbytes(chance.randrange(1, 12))
    return "".join(chance.choice("aZ0-_ é漢\n\0") for _ in range(chance.randrange(1, 20))).encode()


def field(b):
    return struct.pack("!i", len(b)) + b if b or chance.randrange(3) else struct.pack("!i", chance.choice((0, -2, -7)))


def value(kind):
    if kind == "application/json" and chance.randrange(4):
        return json.dumps([chance.random(), {"a": "é", "b": [None, True]}] * chance.randrange(4)).encode()
    if not chance.randrange(40):
        return chance.randbytes(chance.choice((60_000, 70_000, 300_000)))
    return text()


def frame():
    b = b"I"
    for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
        id = text() if not chance.randrange(30) else b"8f7c2f0e-%04d" % chance.randrange(10_000)
        b += struct.pack("!i", len(id)) + id
        for _ in range(chance.randrange(6)):
            name = chance.choice((b"Host", b"body", b"content-type", b"x"))
            more = text() if not chance.randrange(10) else b"127.0.0.1"
            b += struct.pack("!i", len(name)) + name + field(more)
        b += struct.pack("!i", -1)
        for _ in range(chance.choice((0, 1, 1, 1, 3))):
            kind = chance.choice(("application/json", "text/plain", "text", "image/png", "", "application/json; charset=utf-8"))
            name = chance.choice((b"body", b"data", b"x", "é".encode()))
            b += struct.pack("!i", len(name)) + name + field(kind.encode()) + field(value(kind))
        b += struct.pack("!i", -1)
    return b + struct.pack("!i", -1)


def sent(data):
    """A connection over which data comes, in pieces of any size."""
    ours, theirs = socket.socketpair()

    def send():
        at = 0
        while at < len(data):
            n = chance_of_pieces.choice((1, 3, 50, 2000, 65536, 1 << 20))
            theirs.sendall(data[at : at + n])
            at += n
        theirs.close()

    chance_of_pieces = random.Random(len(data))
    t = threading.Thread(target=send)
    t.start()
    return ours, t


def seen(found):
    """What a handler sees, with the types."""
    headers, inputs, ids = found
    return repr(([list(h.get_request_properties().items()) for h in headers], [list(i.items()) for i in inputs], list(ids.items()))), [type(h) for h in headers]


def read(retrieve, data, n):
    conn, t = sent(data)
    all = []
    for _ in range(n):
        def one():
            cmd, msg = retrieve(conn)
            return bytes(cmd), seen(service.Service.retrieve_data_for_inference(msg))

        all.append(outcome(one))
        if all[-1][0] == "raises":
            break
    else:
        try:
            all.append(outcome(lambda: retrieve(conn)))
        except SystemExit as e:
            all.append("leaves with %s" % e.code)
    flush()
    while conn.recv(1 << 20):
        pass  # the sender may wait
    t.join()
    conn.close()
    return all, told()


def short(lines):
    return [line if len(line) < 200 else line[:200] + "..." for line in lines]


def flush():
    retrieve_msg.__self__.lines.flush()


def frames():
    for env in ("true", "false", None):
        os.environ.pop("TS_DECODE_INPUT_REQUEST", None)
        if env:
            os.environ["TS_DECODE_INPUT_REQUEST"] = env
        for i in range(rounds):
            n = chance.randrange(1, 5)
            data = b"".join(frame() for _ in range(n))
            if not chance.randrange(20):
                data += b"?"
            want = read(otf.retrieve_msg, data, n)
            got = read(retrieve_msg, data, n)
            assert got == want, "round %d of frames\ndata %r\ngot  %r\nwant %r" % (i, data[:2000], got, want)


# What is answered.


def thing(deep=0):
    kind = chance.randrange(16 if deep < 4 else 9)
    if kind < 2:
        return text().decode("utf-8", "replace")
    if kind < 9:
        return chance.choice((0, -1, 10**30, 1.5, -0.0, 1e300, 1e-7, float("nan"), float("inf"), True, False, None, "", torch.float32, 3.0, {1}, b"x", Name("n"), Half(0.5)))
    if kind < 12:
        return [thing(deep + 1) for _ in range(chance.randrange(5))]
    if kind == 12:
        return tuple(thing(deep + 1) for _ in range(chance.randrange(3)))
    return {chance.choice(("a", "é", "", 1, 2.5, None, True, "k")): thing(deep + 1) for _ in range(chance.randrange(4))}


class Name(str):
    pass


class Half(float):
    pass


class Loud(dict):
    pass


def result():
    kind = chance.randrange(10)
    if kind == 0:
        return chance.randbytes(chance.randrange(20))
    if kind == 1:
        return bytearray(text())
    if kind == 2:
        return torch.tensor([1.5, 2.0])
    if kind == 3:
        return Name("é")
    if kind == 4:
        deep = []
        for _ in range(chance.choice((10, 23, 24, 25, 26, 60))):
            deep = [deep]
        return deep
    if kind == 5:
        return Loud(a=thing(2))
    return thing()


def situation(state):
    """A context as it is after a handler; the same for the same state."""
    c = random.Random(state)
    found = context.Context("m", ".", {}, 4, None, "0.12.0", True, None, {})
    n = c.randrange(5)
    found.request_processor = [context.RequestProcessor({}) for _ in range(n)]
    for i in range(n):
        if not c.randrange(3):
            found.set_response_status(c.choice((200, 418, None)), c.choice(("", "I'm é", None)), i)
        if not c.randrange(3):
            found.set_response_content_type(i, c.choice(("text/plain", "é", "")))
        if not c.randrange(5):
            found.set_response_header(i, c.choice(("a", "ts_stream_next", "é")), c.choice(("true", "false", "é", 5)))
    if not c.randrange(10):
        found.stopping_criteria = [lambda answer, k=k: (None, True, False)[k % 3] for k in range(n)]
    return found, {i: "id-é-%d" % i for i in range(n)}


def answers():
    for i in range(rounds * 10):
        state = chance.random()
        found, ids = situation(state)
        ret = [result() for _ in ids]
        if not chance.randrange(20):
            ret = chance.choice((None, ret[:-1], ret + [1]))
        code, stream = chance.choice((200, 503)), not chance.randrange(10)
        if not chance.randrange(20):
            found = None

        def both(f):
            told()
            own = situation(state)[0] if found else None
            kind, *more = outcome(f, ret, ids, "Prediction success é", code, own, stream)
            if kind == "gives":
                more = [bytes(more[0])]
            return kind, more, [h.get_response_headers() for h in own.request_processor] if own else None, told()

        want, got = both(stock_predict_response), both(create_predict_response)
        assert got == want, "round %d of answers\nret  %r\ngot  %r\nwant %r" % (i, ret, got, want)


# What is said.


def metrics():
    conn, other = socket.socketpair()
    other.sendall(b"I" + struct.pack("!i", -1))
    retrieve_msg(conn)
    root, own, first = logging.root, caching_metric.logger, logging.root.handlers[0]
    more, formats = logging.StreamHandler(out), first.formatter

    def drop(record):
        return chance_of_lines.random() < 0.5

    changes = [  # what handlers do to the log, and how it is undone
        (lambda: root.setLevel(logging.WARNING), lambda: root.setLevel(logging.INFO)),
        (lambda: logging.disable(logging.INFO), lambda: logging.disable(0)),
        (lambda: own.setLevel(logging.ERROR), lambda: own.setLevel(0)),
        (lambda: first.setFormatter(logging.Formatter("- %(message)s")), lambda: first.setFormatter(formats)),
        (lambda: root.addHandler(more), lambda: root.removeHandler(more)),
        (lambda: own.addHandler(more), lambda: own.removeHandler(more)),
        (lambda: setattr(own, "propagate", False), lambda: setattr(own, "propagate", True)),
        (lambda: first.setLevel(logging.ERROR), lambda: first.setLevel(0)),
        (lambda: first.addFilter(drop), lambda: first.removeFilter(drop)),
        (lambda: own.addFilter(drop), lambda: own.removeFilter(drop)),
        (lambda: logging.getLogger("ts.metrics").setLevel(logging.ERROR), lambda: logging.getLogger("ts.metrics").setLevel(0)),
    ]
    for i in range(rounds + 8 * len(changes)):
        do, undo = changes[(i - rounds) // 8] if i >= rounds else (lambda: None, lambda: None)
        do()
        m = caching_metric.CachingMetric(chance.choice(("HandlerTime", "é")), chance.choice(("ms", "x", "count")), [], chance.choice(list(MetricTypes)))
        given = [(chance.choice(("", "r1", None, "r1,r2", "r" * 5000)), chance.choice((1, 1.25, torch.tensor(2.5), "word")), "Level:Model") for _ in range(chance.randrange(60))]
        said = []
        for emit in (stock_emit, caching_metric.CachingMetric.emit_metrics):
            chance_of_lines = random.Random(i)
            told()
            for g in given:
                emit(m, *g)
            if i < rounds:
                other.sendall(b"I" + struct.pack("!i", -1))
                retrieve_msg(conn)
            flush()
            said.append(short(line for line in told() if "Backend received" not in line))
        undo()
        assert said[0] == said[1], "round %d of metrics\ngot  %s\nwant %s" % (i, said[1], said[0])


frames()
answers()
metrics()
print("equal", file=sys.__stdout__)
