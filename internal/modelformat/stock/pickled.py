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
import sys
import threading
import traceback

import joblib
import numpy as np

LIMIT = 64 << 10  # bytes of a request's head
JSON = "application/json"
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


def frame(instances, model):
    """Instances that are objects by column, as a model that was trained on a table wants them."""
    import pandas

    names = getattr(model, "feature_names_in_", None)
    return pandas.DataFrame(instances, columns=None if names is None else list(names))


def sklearn_predictor(model):
    def predict(instances):
        if instances and isinstance(instances[0], dict):
            return model.predict(frame(instances, model))
        return model.predict(np.asarray(instances))

    return predict


def xgboost_predictor(model):
    import xgboost

    if not isinstance(model, xgboost.Booster):  # the scikit-learn wrapper, or a pipeline around one
        return sklearn_predictor(model)
    model.set_param({"nthread": 1})

    def predict(instances):
        if instances and isinstance(instances[0], dict):
            return model.predict(xgboost.DMatrix(columns(instances, model)))
        return model.predict(xgboost.DMatrix(np.asarray(instances, dtype=np.float64), feature_names=model.feature_names))

    return predict


def columns(instances, model):
    import pandas

    return pandas.DataFrame(instances, columns=model.feature_names)


def load(a):
    model = {"sklearn": load_sklearn, "xgboost": load_xgboost}[a.library](a)
    if not hasattr(model, "predict"):
        raise ModelError("the object in %s is a %s, which cannot predict" % (a.uri, type(model).__qualname__))
    return {"sklearn": sklearn_predictor, "xgboost": xgboost_predictor}[a.library](model)


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


class Model:
    def __init__(self, predict, slots):
        self.predict, self.slots = predict, threading.BoundedSemaphore(slots)

    def answer(self, headers, body):
        if media_type(headers) != JSON:
            raise Refused(400, "Unsupported content type of the request: %s.\nCurrently supported content-type in DefaultSerializer: %r." % (media_type(headers) or None, JSON))
        try:
            request = json.loads(body)
        except ValueError as e:
            raise Refused(400, "JSON deserialization failed for the request data: %s" % e)
        if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
            raise Refused(400, 'The request is not of the form {"instances": [...]}.')
        accept = accepted(headers)
        with self.slots:
            try:
                predictions = self.predict(request["instances"]).tolist()
            except Exception as e:
                message = "The following exception has occurred: %s. Arguments: %s." % (type(e).__name__, e.args)
                log.info("%s\nTraceback: %s", message, traceback.format_exc())
                raise Refused(500, message)
        try:
            return accept, json.dumps({"predictions": predictions}).encode()
        except TypeError:
            raise Refused(400, "JSON serialization failed for the prediction result.")


# HTTP/1.1: one thread a connection, of which the server keeps few and long.


class Connection:
    def __init__(self, socket, a, model):
        self.socket, self.a, self.model, self.rest = socket, a, model, b""

    def run(self):
        try:
            with self.socket:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while self.exchange():
                    pass
        except OSError:
            pass  # whoever asked has gone

    def more(self):
        part = self.socket.recv(65536)
        self.rest += part
        return bool(part)

    def exchange(self):
        """Answers one request; False = the connection is to end."""
        while (end := self.rest.find(b"\r\n\r\n")) < 0:
            if len(self.rest) > LIMIT or not self.more():
                return False
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
            return 200, *self.model.answer(headers, body)
        except Refused as e:
            return e.status, JSON, json.dumps({"detail": e.detail}).encode()

    def send(self, status, kind, body):
        reason = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}[status]
        self.socket.sendall(b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, reason.encode(), kind.encode(), len(body)) + body)


def main():
    a = read_arguments()
    # What the libraries warn of, a pickle of another version above all, is in the log.
    logging.basicConfig(format="%(asctime)s: %(message)s", level=logging.INFO, stream=sys.stdout)
    logging.captureWarnings(True)
    model = Model(load(a), a.slots)
    listener = socket.create_server(("127.0.0.1", a.port), backlog=1024)
    log.info("serving %s with %s, %d predictions at a time", a.uri, library_version(a.library), a.slots)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=Connection(connection, a, model).run, daemon=True).start()


if __name__ == "__main__":
    main()
