"""A small worker that speaks TorchServe's protocol (see README.md)."""

import argparse
import asyncio
import importlib
import json
import logging
import os
import socket
import struct
import sys
import threading


class Closed(Exception):
    pass


class Reader:
    def __init__(self, conn):
        self.conn, self.sendall = conn, conn.sendall

    def exactly(self, n):
        data = b""
        while len(data) < n:
            part = self.conn.recv(n - len(data))
            if not part:
                raise Closed()
            data += part
        return data

    def number(self):
        return struct.unpack("!i", self.exactly(4))[0]

    def text(self):
        return self.exactly(self.number())

    def items(self, fields):
        found = []
        while True:
            n = self.number()
            if n == -1:
                return found
            found.append([self.exactly(n)] + [self.text() for _ in range(fields - 1)])

    def batch(self):
        requests = []
        while True:
            n = self.number()
            if n == -1:
                return requests
            name = self.exactly(n).decode()
            requests.append((name, self.items(2), self.items(3)))


def retrieve_msg(reader):
    """Reads a message; what is put in its place is called instead."""
    cmd = reader.exactly(1)
    if cmd == b"I":
        return cmd, reader.batch()
    load = {"name": reader.text().decode(), "dir": reader.text().decode(), "batch": reader.number(), "handler": reader.text().decode()}
    load["gpu"], load["envelope"] = reader.number(), reader.text().decode()
    reader.exactly(1)
    return cmd, load


def text(value):
    data = value if isinstance(value, (bytes, bytearray)) else value.encode()
    return struct.pack("!i", len(data)) + data


def answer(code, message, ids, results, context=None, stream=None):
    out = struct.pack("!i", code) + text(message)
    for i, name in ids.items():
        value = b"error" if results is None else results[i]
        if not isinstance(value, (bytes, bytearray, str)):
            value = json.dumps(value)
        status, phrase, kind, headers = 200, "", "", {}
        if context is not None:
            status, phrase = context.statuses.get(i, (200, ""))
            kind, headers = context.kinds.get(i, ""), dict(context.headers.get(i, {}))
            if stream:
                headers["ts_stream_next"] = stream
        else:
            status = code
        out += text(name) + text(kind) + struct.pack("!i", status) + text(phrase) + struct.pack("!i", len(headers))
        for k, v in headers.items():
            out += text(k) + text(v)
        out += text(value)
    return out + struct.pack("!i", -1)


class Context:
    def __init__(self, load, conn):
        self.system_properties = {"model_dir": load["dir"], "gpu_id": load["gpu"] if load["gpu"] >= 0 else None, "batch_size": load["batch"]}
        self.model_name, self.cl_socket = load["name"], conn

    def fresh(self, batch):
        self.request_ids = {i: r[0] for i, r in enumerate(batch)}
        self.requests = [{k.decode(): v.decode() for k, v in r[1]} for r in batch]
        self.statuses, self.kinds, self.headers = {}, {}, {}

    def get_request_id(self, i=0):
        return self.request_ids[i]

    def get_request_header(self, i, key):
        return self.requests[i].get(key)

    def get_all_request_header(self, i):
        return self.requests[i]

    def set_response_status(self, code=200, phrase="", idx=0):
        self.statuses[idx] = (code, phrase)

    def set_response_content_type(self, i, value):
        self.kinds[i] = value

    def set_response_header(self, i, key, value):
        self.headers.setdefault(i, {})[key] = value


class TorchModelServiceWorker:
    def __init__(self, s_type, s_name, host_addr, port_num, metrics_config, async_comm=False):
        self.name, self.async_comm = s_name, async_comm

    def run_server(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.settimeout(30)
        listener.bind(self.name)
        listener.listen(1)
        logging.info("[PID]%d", os.getpid())
        logging.info("Torch worker started.")
        conn, _ = listener.accept()
        conn.settimeout(None)
        try:
            self.talk(conn, Reader(conn))
        except Closed:
            sys.exit(0)

    def talk(self, conn, reader):
        cmd, load = retrieve_msg(reader)
        if cmd != b"L":
            raise ValueError("no load")
        context = Context(load, conn)
        file, _, function = load["handler"].partition(":")
        try:
            module = importlib.import_module(file[:-3] if file.endswith(".py") else file)
            handle = getattr(module, function or "handle")
            context.fresh([])
            if not self.async_comm:
                handle(None, context)
        except MemoryError:
            conn.sendall(answer(507, "System out of memory", {}, []))
            raise
        conn.sendall(answer(200, "loaded model " + load["name"], {}, []))
        if self.async_comm:
            return asyncio.run(self.loop(conn, reader, handle, load))
        while True:
            _, batch = retrieve_msg(reader)
            context.fresh(batch)
            conn.sendall(self.predict(handle, batch, context))

    def predict(self, handle, batch, context):
        data = [{p[0].decode(): p[2] for p in r[2]} for r in batch]
        try:
            results = handle(data, context)
        except MemoryError:
            return answer(507, "Out of resources", context.request_ids, None)
        except Exception:
            logging.warning("Invoking custom service failed.", exc_info=True)
            return answer(503, "Prediction failed", context.request_ids, None)
        if len(results) != len(batch):
            return answer(503, "number of batch response mismatched", context.request_ids, None)
        stream = None
        if any(h.get("ts_stream_next") for h in context.headers.values()):
            stream = None  # set by the handler itself
        elif getattr(context, "streamed", False):
            stream, context.streamed = "false", False
        return answer(200, "Prediction success", context.request_ids, results, context, stream)

    async def loop(self, conn, reader, handle, load):
        loop, lock = asyncio.get_running_loop(), threading.Lock()

        async def one(batch):
            context = Context(load, conn)
            context.fresh(batch)
            results = await handle([{p[0].decode(): p[2] for p in r[2]} for r in batch], context)
            with lock:
                conn.sendall(answer(200, "Prediction success", context.request_ids, results, context))

        def read():
            try:
                while reader.exactly(1) == b"I":
                    asyncio.run_coroutine_threadsafe(one(reader.batch()), loop)
            except Closed:
                os._exit(0)

        await loop.run_in_executor(None, read)


if __name__ == "__main__":
    home = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [p for p in sys.path if p != home]
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser()
    for name in ("--sock-type", "--sock-name", "--metrics-config"):
        parser.add_argument(name)
    parser.add_argument("--async", dest="async_comm", action="store_true")
    args = parser.parse_args()
    sys.modules["ts.model_service_worker"] = sys.modules["__main__"]
    try:
        TorchModelServiceWorker(args.sock_type, args.sock_name, None, None, args.metrics_config, args.async_comm).run_server()
    except Exception:
        logging.error("Backend worker process died.", exc_info=True)
    sys.exit(1)
