"""Shorter ways of what TorchServe's worker does for every request, of equal effect.

The parent of workers (zygote.py) calls install() once it has the package: four names
of the package then lead here, in memory. Nothing on the disk is touched, and a handler
that replaces one of them itself has its own. They are written against certain files
of the package, so that any other text of those leaves all as it is; whatever is out
of the ordinary in a request goes to the package's own function.
"""

import atexit
import hashlib
import json
import logging
import os
import socket
import struct
import sys
import threading
import time

# Files whose functions are replaced or relied on, and the SHA-256 of those that the
# replacements were compared with: of torchserve 0.12.0.
KNOWN = {
    "model_service_worker.py": "3640d5ae3d03e229cc1980f8bfbb3642865cb49f9ead1769bf41a30aa4e75343",
    "protocol/otf_message_handler.py": "83e82dc62b4a95a362efe4518786c6b389b895b85acaf37721aaff042ec9989a",
    "service.py": "f18259269551299d25f4e9d2bdc916c8308c10233501df08196cc7cfa2d0d291",
    "context.py": "57eee89d1f8bf8a21fd89c62a322077a31c7aa01df8e0fc28a7c0dc6327bcf08",
    "metrics/caching_metric.py": "3e460b042270864e4d9072d63087e8458e7772846af61a8b74d065e8be1b1833",
    "metrics/metric_abstract.py": "403166285191d7932abb9401f198cdf29df114ddf32bfe1ebd9936a71877321c",
}

ROOM = 1 << 16  # bytes that are asked for at once; a frame of more bytes is read by the package's function
ATOMIC = 4000  # bytes that a pipe takes in one piece, less than its 4096
SOON = 0.005  # seconds: lines of requests that take longer do not wait

integer = struct.Struct("!i")
unpack, pack = integer.unpack_from, integer.pack
quote = json.encoder.encode_basestring_ascii
dumps = json.dumps


def unknown(home):
    """Says what of the package is not the text that this was written for."""
    for name, known in KNOWN.items():
        with open(os.path.join(home, name), "rb") as f:
            if hashlib.sha256(f.read()).hexdigest() != known:
                return "ts/%s is not that of torchserve 0.12.0" % name
    return ""


class Lines:
    """What the worker says of each request. Lines are gathered while requests follow at
    once, and written before it waits. Where somebody has changed how the package logs,
    they go the package's way."""

    def __init__(self, metrics):
        self.metrics = metrics  # the logger of the package's metrics
        self.root = logging.root
        self.text, self.size, self.begun = [], 0, 0.0
        self.handler = self.stream = self.format = None
        self.main = 0
        os.register_at_fork(before=self.flush, after_in_child=self.forked)
        atexit.register(self.flush)

    def begin(self):
        """Notes how things are logged; the worker has set that up."""
        self.main = threading.get_ident()
        h = self.root.handlers[0] if len(self.root.handlers) == 1 else None
        if type(h) is logging.StreamHandler and type(h.formatter) is logging.Formatter and h.formatter._fmt == "%(message)s":
            self.handler, self.stream, self.format = h, h.stream, h.formatter

    def forked(self):
        self.main, self.text = 0, []  # what a handler forks writes at once

    def plain(self):
        root, h, m = self.root, self.handler, self.metrics
        return (
            h is not None and root.handlers == [h] and h.stream is self.stream and h.formatter is self.format and h.level == 0 and not h.filters
            and root.level == logging.INFO and not root.filters and not root.disabled and root.manager.disable < logging.INFO
            and m.parent is root and m.level == 0 and m.propagate and not m.handlers and not m.filters and not m.disabled
        )

    def say(self, line):
        """Takes a line; False = it is the package's to write."""
        n = len(line)
        if threading.get_ident() != self.main or n >= ATOMIC or not line.isascii() or not self.plain():
            self.flush()
            return False
        if self.size + n >= ATOMIC:
            self.flush()
        self.text.append(line)
        self.size += n + 1
        if time.time() - self.begun > SOON:
            self.flush()
        return True

    def flush(self):
        if self.text and threading.get_ident() == self.main:
            self.text.append("")
            text, self.text, self.size = self.text, [], 0
            with self.handler.lock:
                self.stream.write("\n".join(text))
                self.stream.flush()


class Odd(Exception):
    """Something that is left to the package."""


class Short(Exception):
    """A frame is not whole yet."""


class Batch(list):
    """The requests of a frame, read already. It is empty as a list: only
    retrieve_data_for_inference sees it."""

    def __init__(self, read):
        super().__init__()
        self.read = read


class Rest:
    """A connection of which some bytes are read already."""

    def __init__(self, conn, data):
        self.conn, self.data, self.at = conn, data, 0

    def recv(self, n):
        if self.at == len(self.data):
            return self.conn.recv(min(n, ROOM))
        some = self.data[self.at : self.at + n]
        self.at += len(some)
        return some


class Reader:
    """Reads frames of a connection, as many at once as there are."""

    def __init__(self, package, lines, processor, wanted):
        self.package, self.lines, self.processor, self.wanted = package, lines, processor, wanted
        self.conn = None
        self.data, self.at = b"", 0

    def message(self, conn):
        if conn is not self.conn:
            self.conn, self.data, self.at = conn, b"", 0
            self.lines.begin()
        if self.at == len(self.data):
            self.more()
        if self.data[self.at] != 73 or not self.wanted():  # b"I"
            return self.stock()
        found = None
        while found is None:
            try:
                found, at = self.requests(self.data, self.at + 1)
            except (Short, struct.error):
                if len(self.data) - self.at > ROOM:
                    break
                self.more()
            except Exception:  # no JSON, or no text: the package says what it does then
                break
        if found is None:
            return self.stock()
        self.at = at
        self.lines.begun = now = time.time()
        if not self.lines.say("Backend received inference at: %d" % now):
            logging.info("Backend received inference at: %d", now)
        return b"I", found

    def stock(self):
        rest = Rest(self.conn, self.data[self.at :])
        self.data, self.at = b"", 0
        self.lines.flush()
        found = self.package.retrieve_msg(rest)
        self.data = rest.data[rest.at :]
        return found

    def more(self):
        """Waits for bytes; what was said is written before."""
        some = None
        if self.lines.text and time.time() - self.lines.begun < SOON:
            try:
                some = self.conn.recv(ROOM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
        if some is None:
            self.lines.flush()
            some = self.conn.recv(ROOM)
        if not some:
            self.lines.flush()
            logging.info("Frontend disconnected.")
            sys.exit(0)
        self.data, self.at = self.data[self.at :] + some, 0

    def requests(self, b, p):
        """Reads a batch from b at p; gives what handlers get, and where it ends."""
        end = len(b)
        headers, inputs, ids = [], [], {}
        decode = os.environ.get("TS_DECODE_INPUT_REQUEST")
        decode = decode is None or decode == "true"
        while True:
            (n,) = unpack(b, p)
            p += 4
            if n == -1:
                return Batch((headers, inputs, ids)), p
            q = p + n if n > 0 else p
            id, p = b[p:q], q
            own = []
            while True:
                (n,) = unpack(b, p)
                p += 4
                if n == -1:
                    break
                q = p + n if n > 0 else p
                (n,) = unpack(b, q)
                name, p = b[p:q], q + 4
                q = p + n if n > 0 else p
                own.append((name, b[p:q]))
                p = q
            model_in, model_in_headers = {}, {}
            while True:
                (n,) = unpack(b, p)
                p += 4
                if n == -1:
                    break
                q = p + n if n > 0 else p
                (n,) = unpack(b, q)
                name, p = b[p:q], q + 4
                q = p + n if n > 0 else p
                (n,) = unpack(b, q)
                kind, p = b[p:q], q + 4
                q = p + n if n > 0 else p
                if q > end:
                    raise Short
                name, kind = name.decode("utf-8"), kind.decode("utf-8")
                if decode and kind == "application/json":
                    model_in[name] = json.loads(b[p:q].decode("utf-8"))
                elif decode and kind.startswith("text"):
                    model_in[name] = b[p:q].decode("utf-8")
                else:
                    model_in[name] = bytearray(b[p:q])
                model_in_headers[name] = {"content-type": kind}
                p = q
            if p > end:
                raise Short
            ids[len(headers)] = id.decode("utf-8")
            for name, value in own:
                model_in_headers[name.decode("utf-8")] = value.decode("utf-8")
            headers.append(self.processor(model_in_headers))
            inputs.append(model_in)


def encode(value, line, deep=24):
    """Gives what json.dumps(value, indent=2) does; line is what a line begins with."""
    if deep == 0:
        raise Odd
    inner = line + "  "
    if type(value) is dict:
        if not value:
            return "{}"
        parts = []
        for k, v in value.items():
            if type(k) is not str:
                raise Odd
            t = type(v)
            parts.append(quote(k) + ": " + (quote(v) if t is str else repr(v) if t is int or t is float and v - v == 0 else encode(v, inner, deep - 1)))
        return "{" + inner + ("," + inner).join(parts) + line + "}"
    if type(value) is list:
        if not value:
            return "[]"
        parts = []
        for v in value:
            t = type(v)
            parts.append(quote(v) if t is str else repr(v) if t is int or t is float and v - v == 0 else encode(v, inner, deep - 1))
        return "[" + inner + ("," + inner).join(parts) + line + "]"
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    t = type(value)
    if t is int or t is float and value - value == 0:
        return repr(value)
    raise Odd


def body(value):
    if isinstance(value, (bytes, bytearray)):
        return value
    if isinstance(value, str):
        return value.encode("utf-8")
    if json.dumps is not dumps or isinstance(value, sys.modules["torch"].Tensor):
        raise Odd
    return encode(value, "\n").encode("utf-8")


def answer(answers, ids, message, code, context):
    """Gives the frame of a batch that went well."""
    text = message.encode("utf-8")
    parts = [pack(code), pack(len(text)), text]
    for i, id in ids.items():
        headers = context.get_response_headers(i)
        if headers.get("ts_stream_next") == "true":
            raise Odd
        kind = context.get_response_content_type(i) or ""
        status, reason = context.get_response_status(i)
        reason, id = reason if reason is not None else "", id.encode("utf-8")
        parts += (pack(len(id)), id, pack(len(kind)), kind.encode("utf-8"), pack(status if status is not None else 200), pack(len(reason)), reason.encode("utf-8"), pack(len(headers)))
        for pair in headers.items():
            for text in pair:
                text = text.encode("utf-8")
                parts += (pack(len(text)), text)
        text = body(answers[i])
        parts += (pack(len(text)), text)
    parts.append(pack(-1))
    return b"".join(parts)


def install():
    """Puts all of it in; says why not, where the package is another."""
    import ts
    from ts import context, model_service_worker, service
    from ts.metrics import caching_metric
    from ts.protocol import otf_message_handler

    why = unknown(os.path.dirname(ts.__file__))
    if why or model_service_worker.BENCHMARK:
        return why or "TS_BENCHMARK is set"
    lines = Lines(caching_metric.logger)
    stock_retrieve, stock_predict = service.Service.retrieve_data_for_inference, service.Service.predict
    stock_create, stock_emit = service.create_predict_response, caching_metric.CachingMetric.emit_metrics

    def retrieve_data_for_inference(batch):
        return batch.read if type(batch) is Batch else stock_retrieve(batch)

    def create_predict_response(ret, req_id_map, message, code, context=None, ts_stream_next=False):
        if ret is not None and context is not None and not ts_stream_next and not context.stopping_criteria and os.getenv("LOCAL_RANK") is None:
            try:
                return answer(ret, req_id_map, message, code, context)
            except Exception:  # the package's own fails in its way, or does not
                pass
        lines.flush()
        return stock_create(ret, req_id_map, message, code, context, ts_stream_next)

    def emit_metrics(self, request_id, value, dimension_string):
        more = f",{request_id}" if request_id else ""
        kind, host, now = self.metric_type.name, socket.gethostname(), int(time.time())
        if not lines.say(f"[METRICS]{self.metric_name}.{self.unit}:{value}|#{dimension_string}|#type:{kind}|#hostname:{host},{now}{more}"):
            stock_emit(self, request_id, value, dimension_string)

    def wanted():  # nobody has put another one between who reads and who takes it
        return service.Service.predict is stock_predict and service.Service.retrieve_data_for_inference is retrieve_data_for_inference

    model_service_worker.retrieve_msg = Reader(otf_message_handler, lines, context.RequestProcessor, wanted).message
    service.Service.retrieve_data_for_inference = staticmethod(retrieve_data_for_inference)
    service.create_predict_response = create_predict_response
    caching_metric.CachingMetric.emit_metrics = emit_metrics
    return ""
