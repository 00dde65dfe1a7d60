"""Serves a pickled scikit-learn or XGBoost model as the stock predictors do.

Run by tategu inside the sandbox of a replica: loading a pickle runs what is in it.
The answers are those of google-cloud-aiplatform's prediction.{sklearn,xgboost} behind
its PredictionHandler; the HTTP is the little of HTTP/1.1 that a replica needs. What
differs from the stock server is listed in docs/guide/models.md.
"""

import argparse
import json
import logging
import os
import pickle
import re
import socket
import struct
import sys
import threading
import traceback

import joblib
import numpy as np

LIMIT = 64 << 10  # bytes of a request's head
JSON = "application/json"
TRIED = 16  # such calls that are compared with calls for each request alone, at first
log = logging.getLogger("model")


class ModelError(Exception):
    """The model file cannot be served."""


def read_arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--library", choices=["sklearn", "xgboost"])
    p.add_argument("--directory", help="where the artifact lies")
    p.add_argument("--uri", help="what people call it")
    p.add_argument("--image")
    p.add_argument("--port", type=int)
    p.add_argument("--health")
    p.add_argument("--predict")
    p.add_argument("--slots", type=int, help="predictions at a time")
    p.add_argument("--together", type=int, help="rows of one call of predict for several requests, at most; 1 = each request has its own")
    return p.parse_args()


# The model.


def saved_by(path):
    """The version of scikit-learn that a pickle says it was written by; None = it does not."""
    with open(path, "rb") as f:
        found = re.search(rb"_sklearn_version.{1,9}?(\d+\.\d+[\w.]*)", f.read(), re.DOTALL)
    return found and found[1].decode().rstrip(".")


def library_version(library):
    module = __import__(library)
    return {"sklearn": "scikit-learn ", "xgboost": "XGBoost "}[library] + module.__version__


def unpickle(a, path):
    """Loads a pickle, and says what an exception means for whoever saved it."""
    try:
        if path.endswith(".joblib"):
            return joblib.load(path)
        with open(path, "rb") as f:
            return pickle.load(f)
    except Exception as e:
        traceback.print_exc()
        here = library_version(a.library)
        why = "%s: %s" % (type(e).__name__, e)
        written = saved_by(path)
        if written and a.library == "sklearn" and not here.endswith(" " + written):
            why += " (it was saved by scikit-learn %s)" % written
        raise ModelError("cannot load %s/%s with %s of the image %s: %s" % (a.uri, os.path.basename(path), here, a.image, " ".join(why.split()))) from None


def exists(a, name):
    path = os.path.join(a.directory, name)
    return path if os.path.exists(path) else None


def load_xgboost(a):
    """In the order of the stock predictor; a model.bst that is a pickle is taken, too."""
    import xgboost

    path = exists(a, "model.bst") or exists(a, "model.joblib")
    if path is None:
        return unpickle(a, exists(a, "model.pkl") or missing(a, "model.bst, model.joblib or model.pkl"))
    with open(path, "rb") as f:
        head = f.read(4)
    pickled = head[:1] == b"\x80" if path.endswith(".bst") else head[:1] != b"{" and head != b"binf"
    if pickled:
        return unpickle(a, path)
    try:
        return xgboost.Booster(model_file=path)
    except xgboost.core.XGBoostError as e:
        raise ModelError("cannot load %s/%s with %s of the image %s: %s" % (a.uri, os.path.basename(path), library_version("xgboost"), a.image, first_line(e))) from None


def first_line(e):
    return str(e).strip().partition("\n")[0]


def load_sklearn(a):
    return unpickle(a, exists(a, "model.joblib") or exists(a, "model.pkl") or missing(a, "model.joblib or model.pkl"))


def missing(a, names):
    raise ModelError("there is no %s in %s" % (names, a.uri))


def table(instances, model):
    """Instances that are objects by column, as a model that was trained on a table wants them."""
    import pandas

    names = getattr(model, "feature_names_in_", None)
    return pandas.DataFrame(instances, columns=None if names is None else list(names))


class Sklearn:
    """Predicts as the stock predictor: rows makes what the model takes of instances."""

    def __init__(self, model):
        self.model = model

    def rows(self, instances):
        return np.asarray(instances)

    def predict(self, rows):
        return self.model.predict(rows)

    def predict_objects(self, instances):
        return self.model.predict(table(instances, self.model))


class Booster:
    def __init__(self, model):
        model.set_param({"nthread": 1})
        self.model, self.names = model, model.feature_names

    def rows(self, instances):
        return np.asarray(instances, dtype=np.float64)

    def predict(self, rows):
        import xgboost

        return self.model.predict(xgboost.DMatrix(rows, feature_names=self.names))

    def predict_objects(self, instances):
        import pandas
        import xgboost

        return self.model.predict(xgboost.DMatrix(pandas.DataFrame(instances, columns=self.names)))


def predictor(library, model):
    if library == "xgboost":
        import xgboost

        if isinstance(model, xgboost.Booster):  # else the scikit-learn wrapper, or a pipeline around one
            return Booster(model)
    return Sklearn(model)


def load(a):
    model = {"sklearn": load_sklearn, "xgboost": load_xgboost}[a.library](a)
    if not hasattr(model, "predict"):
        raise ModelError("the object in %s is a %s, which cannot predict" % (a.uri, type(model).__qualname__))
    return predictor(a.library, model)


# The answers of the stock handler.


class Refused(Exception):
    def __init__(self, status, detail):
        self.status, self.detail = status, detail


def media_type(headers):
    return headers.get("content-type", "").split(";")[0].strip()


def accepted(headers):
    """The media type of the answer, which the stock server takes as it was asked for."""
    accept = headers.get("accept") or JSON
    if any(part.split(";")[0].strip() in (JSON, "*/*") for part in accept.split(",")):
        return JSON
    raise Refused(400, "Unsupported accept of the response: %s.\nCurrently supported accept in DefaultSerializer: %r." % (accept, JSON))


def instances_of(body):
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise Refused(400, "JSON deserialization failed for the request data: %s" % e)
    if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
        raise Refused(400, 'The request is not of the form {"instances": [...]}.')
    return request["instances"]


def answer_of(predictions):
    try:
        return json.dumps({"predictions": predictions}).encode()
    except (TypeError, ValueError, RecursionError):
        raise Refused(400, "JSON serialization failed for the prediction result.")


def detail(refused):
    return json.dumps({"detail": refused.detail}).encode()


class Model:
    def __init__(self, predictor, slots, rows):
        self.predictor, self.slots = predictor, threading.BoundedSemaphore(slots)
        self.together = Together(predictor, rows) if rows > 1 else None

    def answer(self, headers, body):
        if media_type(headers) != JSON:
            raise Refused(400, "Unsupported content type of the request: %s.\nCurrently supported content-type in DefaultSerializer: %r." % (media_type(headers) or None, JSON))
        instances = instances_of(body)
        accept = accepted(headers)
        with self.slots:
            predictions = self.alone(instances)
        return accept, answer_of(predictions)

    def alone(self, instances):
        """Predictions for one request, in a call of their own."""
        try:
            if instances and isinstance(instances[0], dict):
                return self.predictor.predict_objects(instances).tolist()
            return self.predictor.predict(self.predictor.rows(instances)).tolist()
        except Exception as e:
            message = "The following exception has occurred: %s. Arguments: %s." % (type(e).__name__, e.args)
            log.info("%s\nTraceback: %s", message, traceback.format_exc())
            raise Refused(500, message)

    def answers(self, bodies):
        """(status, JSON) for each of the bodies of requests that came at once."""
        answers, asked = [None] * len(bodies), {}
        for i, body in enumerate(bodies):
            try:
                asked[i] = instances_of(body)
            except Refused as e:
                answers[i] = e.status, detail(e)
        with self.slots:
            predicted = self.together.predict(asked, self.alone) if self.together and len(asked) > 1 else {}
            for i, instances in asked.items():
                try:
                    answers[i] = 200, answer_of(predicted[i] if i in predicted else self.alone(instances))
                except Refused as e:
                    answers[i] = e.status, detail(e)
        return answers


class Together:
    """Several requests in one call of predict, where that changes nothing but the time.

    Requests whose rows are arrays of one width and type are put one below the other. At
    first each such call is compared with calls for each request alone; a model whose rows
    depend on one another is never asked so again. So is one that fails for some of them.
    """

    def __init__(self, predictor, rows):
        self.predictor, self.most = predictor, rows
        self.left, self.off = TRIED, False
        self.lock = threading.Lock()

    def predict(self, asked, alone):
        """Predictions by the requests' numbers; those that are not in it are to be asked for alone."""
        done = {}
        for group in self.groups(asked):
            if self.off:
                break
            try:
                got = self.call(group)
            except Exception:
                continue  # which of them it is shows alone
            if got is None or self.left > 0 and not self.same(asked, got, alone):
                break
            done.update(got)
        return done

    def groups(self, asked):
        """Lists of (number, rows) that go together."""
        growing, full = {}, []
        for i, instances in asked.items():
            try:
                key, rows = self.kind(instances)
            except Exception:
                continue  # alone it is told
            if key is None or len(rows) >= self.most:
                continue
            group, size = growing.get(key, ([], 0))
            if size + len(rows) > self.most:
                full.append(group)
                group, size = [], 0
            group.append((i, rows))
            growing[key] = group, size + len(rows)
        full.extend(group for group, _ in growing.values())
        return [group for group in full if len(group) > 1]

    def kind(self, instances):
        """What has to be equal for requests to go together (None = they do not), and the rows."""
        if not instances:
            return None, instances
        if isinstance(instances[0], list):
            rows = self.predictor.rows(instances)
            if rows.ndim < 2 or rows.dtype.kind not in "fiub":
                return None, rows
            return (rows.shape[1:], rows.dtype.str), rows
        if not isinstance(instances[0], dict):
            return None, instances
        # Names and types, since a column of a table has one type for all its rows.
        kinds = {tuple((name, type(value)) for name, value in row.items()) for row in instances}
        return (kinds.pop() if len(kinds) == 1 else None), instances

    def call(self, group):
        """One call of predict; None = its answer cannot be told apart by request."""
        numbers, parts = zip(*group)
        if isinstance(parts[0], list):
            whole = self.predictor.predict_objects([row for part in parts for row in part])
        else:
            whole = self.predictor.predict(np.concatenate(parts))
        rows = sum(map(len, parts))
        if len(whole) != rows:
            return self.end("gives %d predictions for %d rows" % (len(whole), rows))
        got, at = {}, 0
        for i, part in zip(numbers, parts):
            got[i] = whole[at : at + len(part)].tolist()
            at += len(part)
        return got

    def same(self, asked, got, alone):
        for i, predictions in got.items():
            try:
                equal = close(predictions, alone(asked[i]))
            except Exception:  # also what cannot be compared
                equal = False
            if not equal:
                self.end("gives other predictions for rows of one request beside those of another")
                return False
        with self.lock:
            self.left -= 1
        return True

    def end(self, why):
        if not self.off:
            log.info("the model %s: requests are predicted one at a time", why)
        self.off = True


def close(a, b):
    """Whether two predictions are the same but for rounding."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    if a.dtype.kind == "f" and b.dtype.kind == "f":
        return bool(np.allclose(a, b, rtol=1e-5, atol=1e-8, equal_nan=True))
    return bool((a == b).all())


# Frames (package replica/frame of the server): all predictions over one connection. What
# came while the model was busy is answered together.

FRAMES = "tategu-frames/1"
HEAD = struct.Struct(">IIH")  # bytes of the body, number, code
CANCEL, QUESTION = 0, 1


class Frames:
    """Threads take turns: one waits for questions, answers what has come, and another waits meanwhile."""

    def __init__(self, connection, rest, model, threads):
        self.socket, self.rest, self.model = connection, rest, model
        self.reading, self.writing, self.threads = threading.Lock(), threading.Lock(), threads

    def run(self):
        others = [threading.Thread(target=self.turns, daemon=True) for _ in range(self.threads - 1)]
        for thread in others:
            thread.start()
        self.turns()
        for thread in others:
            thread.join()

    def turns(self):
        try:
            while True:
                with self.reading:
                    asked = self.read()
                if asked is None:
                    return
                if asked:
                    self.send(list(asked), self.model.answers(list(asked.values())))
        except OSError:
            pass  # the server has gone
        except BaseException:  # a model that exits, above all
            self.end()
            raise

    def end(self):
        """Ends the connection: nobody waits for what this thread has taken."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already

    def read(self):
        """Bodies of questions by their numbers; None = there come no more."""
        part = b"" if self.rest is None else self.socket.recv(1 << 18)
        if not part:
            self.rest = None  # the other threads hear of it here
            return None
        data, at, asked = self.rest + part, 0, {}
        while len(data) - at >= HEAD.size:
            size, number, code = HEAD.unpack_from(data, at)
            if code == CANCEL and size == 0:
                asked.pop(number, None)
            elif code != QUESTION or size > LIMIT:
                log.info("a frame of code %d and %d bytes is none that the server sends", code, size)
                self.rest = None
                return None
            elif len(data) - at - HEAD.size < size:
                break
            else:
                asked[number] = data[at + HEAD.size : at + HEAD.size + size]
            at += HEAD.size + size
        self.rest = data[at:]
        return asked

    def send(self, numbers, answers):
        out = []
        for number, (status, body) in zip(numbers, answers):
            out += HEAD.pack(len(body), number, status), body
        with self.writing:
            self.socket.sendall(b"".join(out))


# HTTP/1.1: one thread a connection, of which the server keeps few and long.


class Connection:
    def __init__(self, socket, a, model):
        self.socket, self.a, self.model, self.rest, self.frames = socket, a, model, b"", False

    def run(self):
        try:
            with self.socket:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while self.exchange():
                    pass
                if self.frames:
                    Frames(self.socket, self.rest, self.model, self.a.slots).run()
        except OSError:
            pass  # whoever asked has gone

    def more(self):
        part = self.socket.recv(65536)
        self.rest += part
        return bool(part)

    def exchange(self):
        """Answers one request; False = the connection is to end."""
        while b"\r\n\r\n" not in self.rest:
            if len(self.rest) > LIMIT or not self.more():
                return False
        end = self.rest.find(b"\r\n\r\n")
        head, self.rest = self.rest[:end].decode("latin-1"), self.rest[end + 4 :]
        lines = head.split("\r\n")
        words = lines[0].split(" ")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if len(words) != 3 or "transfer-encoding" in headers or not headers.get("content-length", "0").isdigit():
            self.send(400, JSON, b'{"detail": "Bad request"}')
            return False
        if headers.get("upgrade") == FRAMES and words[0] == "GET":
            self.socket.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n" % FRAMES.encode())
            self.frames = True
            return False
        body = self.body(int(headers.get("content-length", 0)))
        if body is None:
            return False
        self.send(*self.respond(words[0], words[1].partition("?")[0], headers, body))
        return headers.get("connection", "").lower() != "close"

    def body(self, size):
        if size <= len(self.rest):
            body, self.rest = self.rest[:size], self.rest[size:]
            return body
        whole = bytearray(size)
        at = len(self.rest)
        whole[:at] = self.rest
        self.rest = b""
        view = memoryview(whole)
        while at < size:
            n = self.socket.recv_into(view[at:])
            if n == 0:
                return None
            at += n
        return bytes(whole)

    def respond(self, method, path, headers, body):
        wants = {self.a.health: "GET", self.a.predict: "POST"}.get(path)
        if wants is None:
            return 404, JSON, b'{"detail":"Not Found"}'
        if method != wants:
            return 405, JSON, b'{"detail":"Method Not Allowed"}'
        if wants == "GET":
            return 200, JSON, b"{}"
        try:
            kind, answer = self.model.answer(headers, body)
            return 200, kind, answer
        except Refused as e:
            return e.status, JSON, detail(e)

    def send(self, status, kind, body):
        reason = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}[status]
        self.socket.sendall(b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, reason.encode(), kind.encode(), len(body)) + body)


def main():
    a = read_arguments()
    # What the libraries warn of, a pickle of another version above all, is in the log.
    logging.basicConfig(format="%(asctime)s: %(message)s", level=logging.INFO, stream=sys.stdout)
    logging.captureWarnings(True)
    model = Model(load(a), a.slots, a.together)
    listener = socket.create_server(("127.0.0.1", a.port), backlog=1024)
    log.info("serving %s with %s, %d predictions at a time", a.uri, library_version(a.library), a.slots)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=Connection(connection, a, model).run, daemon=True).start()


if __name__ == "__main__":
    main()
