"""Copies of requests: shadows, and the table of logged requests."""

import json
import time

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform, storage

from conftest import PROJECT

TRIES = 300


def test_logged_requests(mode, echo_model):
    """The SDK's own arguments; rows are JSON lines in a bucket of the project."""
    endpoint = aiplatform.Endpoint.create(
        display_name="logged e",
        enable_request_response_logging=True,
        request_response_logging_sampling_rate=1.0,
    )
    try:
        config = endpoint.gca_resource.predict_request_response_logging_config
        table = f"logging_logged_e_{endpoint.name}"
        assert (
            config.bigquery_destination.output_uri
            == f"bq://{PROJECT}.{table}.request_response_logging"
        )
        endpoint.deploy(echo_model, machine_type="n1-standard-2")
        for i in range(3):
            assert endpoint.predict(instances=[i]).predictions == [i]
        extra = {"credentials": AnonymousCredentials()} if mode == "http" else {}
        client = storage.Client(project=PROJECT, **extra)
        rows = []
        for _ in range(TRIES):
            try:
                blobs = list(
                    client.list_blobs(f"{PROJECT}-prediction-logs", prefix=table)
                )
            except Exception:  # noqa: BLE001 - the bucket comes with the first row
                blobs = []
            text = b"".join(b.download_as_bytes() for b in blobs)
            rows = [json.loads(line) for line in text.splitlines()]
            if len(rows) == 3:
                break
            time.sleep(0.1)
        (deployed,) = endpoint.list_models()
        asked = [json.loads(r["request_payload"][0])["instances"] for r in rows]
        got = [json.loads(r["response_payload"][0])["predictions"] for r in rows]
        assert asked == got == [[0], [1], [2]]
        for row in rows:
            assert row["endpoint"] == endpoint.name
            assert row["deployed_model_id"] == deployed.id
            assert row["request_id"]
            assert row["logging_time"]
        assert len({r["request_id"] for r in rows}) == 3
    finally:
        endpoint.delete(force=True)


def test_shadow(mode, echo_model, served_model, server):
    endpoint = aiplatform.Endpoint.create(display_name="shadowed")
    try:
        endpoint.deploy(echo_model, machine_type="n1-standard-2")
        (first,) = [m.id for m in endpoint.list_models()]
        endpoint.deploy(
            served_model, machine_type="n1-standard-2", traffic_percentage=0
        )
        (second,) = {m.id for m in endpoint.list_models()} - {first}
        with pytest.raises(RuntimeError, match="no request"):
            server.command("shadow", endpoint.resource_name)
        server.command("shadow", endpoint.resource_name, "--to", second)
        rows = [[0.1, 0.2, 0.3, 0.4]]
        told = ""
        for _ in range(TRIES):
            assert endpoint.predict(instances=rows).predictions == rows
            try:
                told = server.command("shadow", endpoint.resource_name)
            except RuntimeError:  # nothing was copied yet
                continue
            if "1 compared" in told:
                break
        assert "1 compared: 0 equal, 1 different; 0 not answered" in told
        assert "predictions[]" in told
        assert "SHADOW" in told
        server.command("shadow", endpoint.resource_name, "--stop")
        assert not aiplatform.Endpoint(endpoint.resource_name).labels
    finally:
        endpoint.delete(force=True)
