"""The program behind the prebuilt images: frames, and requests that go together.

Its parts are called as they are; that it predicts as the libraries do is tested in
test_pickles.
"""

import importlib.util
import json
import random
import socket
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder, scale

SOURCE = Path(__file__).parents[2] / "internal/modelformat/stock/pickled.py"
CANCEL, QUESTION = 0, 1


@pytest.fixture(scope="module")
def program():
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("pickled", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Counted:
    """A model of which each call is noted by its number of rows."""

    def __init__(self, model):
        self.model, self.calls = model, []

    def predict(self, rows):
        self.calls.append(len(rows))
        return self.model.predict(rows)


class Rows:
    """A model whose predictions are what a function makes of all rows."""

    def __init__(self, function):
        self.predict = function


def body(*rows):
    return json.dumps({"instances": list(rows)}).encode()


def alone(program, model, bodies):
    """The answers to requests that come one after the other."""
    one = program.Model(program.Sklearn(model), 1, 1)
    return [one.answers([b])[0] for b in bodies]


def numbers():
    rng = np.random.default_rng(5)
    return rng.normal(size=(100, 4)), rng.normal(size=100)


def test_requests_go_together(program):
    x, y = numbers()
    model = Counted(Ridge().fit(x, y))
    served = program.Model(program.Sklearn(model), 1, 8)
    bodies = [body(*x[i : i + 1 + i % 3].tolist()) for i in range(6)]
    want = alone(program, model.model, bodies)
    for _ in range(program.TRIED):
        assert [s for s, _ in served.answers(bodies)] == [200] * 6
    model.calls.clear()
    got = served.answers(bodies)
    assert model.calls == [7, 5]  # of 12 rows, at most 8 at once
    for (_, a), (_, b) in zip(got, want, strict=True):
        assert json.loads(a)["predictions"] == pytest.approx(json.loads(b)["predictions"])


def test_a_bad_request_is_told_alone(program):
    x, y = numbers()
    model = Ridge().fit(x, y)
    good, bodies = body(x[0].tolist()), []
    for bad in [b"{", b'{"instances": 1}', body([1, 2]), body([1, 2], [1]), body("a"), body([None] * 4), body(["a"] * 4), body([1, 2, 3, "4"]), body(), body([]), body({"x": 1}), body({"x": 1}, [1]), b'{"instances":' + b"[" * 9000]:
        bodies += [good, bad, good]
    served = program.Model(program.Sklearn(model), 1, 100)
    assert served.answers(bodies) == alone(program, model, bodies)
    assert not served.together.off


def test_tables_go_together(program):
    columns = pd.DataFrame({"size": [1.0, 2.5, 3.0, 4.0], "colour": ["red", "blue", "red", "red"]})
    from sklearn.compose import make_column_transformer

    prepare = make_column_transformer((OrdinalEncoder(), ["colour"]), remainder="passthrough")
    model = Counted(make_pipeline(prepare, Ridge()).fit(columns, [1, 2, 3, 4]))
    model.feature_names_in_ = model.model.feature_names_in_
    served = program.Model(program.Sklearn(model), 1, 100)
    served.together.left = 0
    rows = columns.to_dict("records")
    # Another type, and another column, have a table of their own.
    bodies = [body(rows[0]), body(rows[1], rows[2]), body({"size": 3, "colour": "red"}), body({"size": 3.5})]
    got = served.answers(bodies)
    assert model.calls[0] == 3
    assert len(model.calls) >= 2
    for (a_status, a), (b_status, b) in zip(got, alone(program, model.model, bodies), strict=True):
        assert a_status == b_status
        if a_status == 200:
            assert json.loads(a)["predictions"] == pytest.approx(json.loads(b)["predictions"])
        else:
            assert a == b


@pytest.mark.parametrize(
    "model",
    [
        Rows(lambda rows: rows.sum(axis=1) - rows.mean()),
        Rows(lambda rows: rows.mean(axis=0)),
        Rows(lambda rows: np.full(len(rows), len(rows))),
        Rows(lambda rows: [str(len(rows))] * len(rows)),
        Rows(lambda rows: np.array([[1] * i for i in range(len(rows))], dtype=object)),
    ],
    ids=["centred", "columns", "length", "list", "ragged"],
)
def test_rows_that_depend_on_others(program, model):
    x, _ = numbers()
    bodies = [body(x[0].tolist()), body(*x[1:5].tolist()), body(x[5].tolist())]
    served = program.Model(program.Sklearn(model), 1, 100)
    want = alone(program, model, bodies)
    for _ in range(3):
        assert served.answers(bodies) == want


def test_a_pipeline_that_scales_each_request(program):
    x, y = numbers()
    model = make_pipeline(FunctionTransformer(scale), Ridge()).fit(x, y)
    bodies = [body(x[0].tolist()), body(*x[1:5].tolist())]
    served = program.Model(program.Sklearn(model), 1, 100)
    assert served.answers(bodies) == alone(program, model, bodies)
    assert served.together.off


class Server:
    """The side of the server: it writes frames and reads answers."""

    def __init__(self, program, model, threads):
        self.head = program.HEAD
        self.mine, other = socket.socketpair()
        self.mine.settimeout(30)
        self.thread = threading.Thread(target=self.serve, args=(program.Frames(other, b"", model, threads), other))
        self.thread.start()

    def serve(self, frames, other):
        with other:
            frames.run()

    def question(self, number, code, content=b""):
        return self.head.pack(len(content), number, code) + content

    def answers(self):
        """What comes until the connection ends, by number."""
        data, got = b"", {}
        while part := self.mine.recv(1 << 16):
            data += part
        while data:
            size, number, status = self.head.unpack_from(data)
            assert number not in got
            got[number] = status, data[self.head.size : self.head.size + size]
            data = data[self.head.size + size :]
        self.thread.join(30)
        assert not self.thread.is_alive()
        return got


@pytest.mark.parametrize("threads", [1, 3])
def test_frames_in_pieces(program, threads):
    x, y = numbers()
    model = Ridge().fit(x, y)
    dice = random.Random(threads)
    bodies = {n: dice.choice([body(x[n % 100].tolist()), body(*x[:3].tolist()), b"{", body([1])]) for n in dice.sample(range(1 << 32), 200)}
    server = Server(program, program.Model(program.Sklearn(model), threads, 100), threads)
    sent = b"".join(server.question(n, QUESTION, b) for n, b in bodies.items())
    while sent:
        cut = dice.choice([1, 7, 300, 5000])
        server.mine.sendall(sent[:cut])
        sent = sent[cut:]
    server.mine.shutdown(socket.SHUT_WR)
    got = server.answers()
    for (n, b), (status, text) in zip(bodies.items(), alone(program, model, bodies.values()), strict=True):
        assert got[n][0] == status, b
        if status == 200:
            assert json.loads(got[n][1])["predictions"] == pytest.approx(json.loads(text)["predictions"])
        else:
            assert got[n][1] == text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_model_that_exits(program, threads):
    """The connection ends, so that nobody waits for an answer that never comes."""

    def leave(rows):
        raise SystemExit(3)

    server = Server(program, program.Model(program.Sklearn(Rows(leave)), threads, 100), threads)
    server.mine.sendall(server.question(1, QUESTION, body([1])))
    assert server.answers() == {}


def test_a_question_that_is_taken_back(program):
    x, y = numbers()
    server = Server(program, program.Model(program.Sklearn(Ridge().fit(x, y)), 1, 100), 1)
    q = server.question
    server.mine.sendall(q(7, QUESTION, body(x[0].tolist())) + q(7, CANCEL) + q(8, CANCEL) + q(9, QUESTION, body(x[0].tolist())))
    server.mine.shutdown(socket.SHUT_WR)
    assert list(server.answers()) == [9]


@pytest.mark.parametrize("seed", range(30))
def test_garbage_ends_the_connection(program, seed):
    x, y = numbers()
    dice = random.Random(seed)
    server = Server(program, program.Model(program.Sklearn(Ridge().fit(x, y)), 2, 100), 2)
    try:
        server.mine.sendall(server.question(1, QUESTION, body([1])) + dice.randbytes(200))
        server.mine.shutdown(socket.SHUT_WR)
        assert set(server.answers()) <= {1}
    except (ConnectionResetError, BrokenPipeError):
        server.thread.join(30)
        assert not server.thread.is_alive()
