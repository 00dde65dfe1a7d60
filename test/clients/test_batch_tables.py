"""Batch prediction into a table, its end told by a webhook, tategu sql and tategu why."""

import base64
import contextlib
import hashlib
import hmac
import json
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform

from server import Server

KEY = b"thirty-two bytes that sign posts"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Receiver(ThreadingHTTPServer):
    """Takes events: the first request of each is answered with an error."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.wrong = [], []
        self.changed = threading.Condition()

    def of(self, job, count):
        """The requests about a job, as (id, body), once there are so many."""

        def found():
            return [s for s in self.seen if s[1]["subject"] == job.resource_name]

        with self.changed:
            assert self.changed.wait_for(lambda: len(found()) >= count, 60), self.seen
            return found()


class Handler(BaseHTTPRequestHandler):
    """Checks signatures as Standard Webhooks has them."""

    def do_POST(self):
        """Keep the event."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.headers["webhook-id"]
        signed = f"{name}.{self.headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(KEY, signed, hashlib.sha256).digest()
        want = "v1," + base64.b64encode(digest).decode()
        with self.server.changed:
            if self.headers["webhook-signature"] != want:
                self.server.wrong.append((name, dict(self.headers)))
            again = any(name == seen for seen, _ in self.server.seen)
            self.server.seen.append((name, json.loads(body)))
            self.server.changed.notify_all()
        self.send_response(200 if again else 500)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def own(receiver, tmp_path_factory):
    """A server with a warehouse and a webhook, and the SDK pointed at it."""
    port = receiver.server_address[1]
    config = (
        "buckets: [tables]\nproject: p\n"
        "warehouses: {lite: {sqlite: results.db}}\n"
        f"webhooks: [{{url: 'http://127.0.0.1:{port}/hook', secret: {SECRET}}}]\n"
    )
    with Server(tmp_path_factory.mktemp("tables"), config) as server:
        aiplatform.init(
            project="p",
            location="us-central1",
            api_endpoint=f"http://{server.address}",
            api_transport="rest",
            credentials=AnonymousCredentials(),
        )
        yield server
        aiplatform.initializer.global_pool.shutdown(wait=True)
        aiplatform.initializer.global_config.__init__()


@pytest.fixture(scope="module")
def model(own, lightgbm_model):
    folder, _, _ = lightgbm_model
    own.put("tables", "model/model.txt", (folder / "model.txt").read_bytes())
    return aiplatform.Model.upload(
        display_name="lgb",
        artifact_uri="gs://tables/model",
        serving_container_image_uri="tategu/lightgbm",
    )


def put_lines(server, name, lines):
    server.put("tables", name, "".join(f"{line}\n" for line in lines).encode())


def test_results_in_a_table(own, receiver, model, lightgbm_model):
    _, rows, scores = lightgbm_model
    put_lines(own, "in.jsonl", [*map(json.dumps, rows), '"no numbers"'])
    job = model.batch_predict(
        job_display_name="table",
        gcs_source="gs://tables/in.jsonl",
        bigquery_destination_prefix="bq://lite.scores",
        machine_type="n1-standard-2",
    )
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    stats = job.completion_stats
    assert (stats.successful_count, stats.failed_count) == (len(rows), 1)
    with contextlib.closing(sqlite3.connect(own.data / "results.db")) as db:
        got = dict(db.execute("SELECT instance, prediction FROM scores"))
        failed = db.execute("SELECT code, uri, line FROM scores_errors").fetchall()
    assert len(got) == len(rows)
    for row, score in zip(rows, scores, strict=True):
        assert got[json.dumps(row)] == pytest.approx(score, abs=1e-12)
    assert failed == [(3, "gs://tables/in.jsonl", len(rows) + 1)]
    first, second = receiver.of(job, 2)
    assert first == second
    assert first[1]["type"] == "tategu.batchPredictionJob.succeeded"
    assert first[1]["data"]["completionStats"]["successfulCount"] == str(len(rows))
    assert receiver.wrong == []


def test_sql_of_inputs_and_outputs(own, model, lightgbm_model):
    _, rows, scores = lightgbm_model
    put_lines(own, "sql.jsonl", map(json.dumps, rows))
    job = model.batch_predict(
        job_display_name="files",
        gcs_source="gs://tables/sql.jsonl",
        gcs_destination_prefix="gs://tables/out",
        machine_type="n1-standard-2",
    )
    query = (
        "SELECT i._row AS n, i.c0, o.prediction FROM j_input i"
        " JOIN j_output o ON o.instance = i._record ORDER BY i._row"
    )
    text = own.command("sql", "--job", f"j={job.name}", "-o", "json", query)
    got = [json.loads(line) for line in text.splitlines()]
    assert [g["n"] for g in got] == list(range(1, len(rows) + 1))
    assert [g["c0"] for g in got] == pytest.approx([row[0] for row in rows])
    assert [g["prediction"] for g in got] == pytest.approx(scores, abs=1e-12)


def test_why_of_a_job_that_failed(own, receiver, model):
    put_lines(own, "bad.jsonl", ['"a"', '"b"'])
    with pytest.raises(RuntimeError, match="all 2 instances failed"):
        model.batch_predict(
            job_display_name="bad",
            gcs_source="gs://tables/bad.jsonl",
            gcs_destination_prefix="gs://tables/out",
            machine_type="n1-standard-2",
        )
    jobs = aiplatform.BatchPredictionJob.list()
    job = next(job for job in jobs if job.display_name == "bad")
    (name, event), *_ = receiver.of(job, 1)
    assert name == event["id"]
    assert event["type"] == "tategu.batchPredictionJob.failed"
    text = own.command("why", job.name)
    assert "results: 0, errors: 2" in text
    assert "all 2 instances failed" in text
    assert "line 2 of gs://tables/bad.jsonl" in text
