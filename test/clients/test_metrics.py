"""Metrics as their readers see them: Grafana's dashboard, Prometheus, Datadog's check."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from google.cloud import aiplatform

from server import ROOT

DASHBOARD = ROOT / "docs" / "grafana.json"
DATADOG = Path(
    os.environ.get("TATEGU_TEST_DATADOG", ROOT / ".venv/datadog/bin/python")
)
TRIES = 300


def fetch(server, accept="text/plain"):
    request = urllib.request.Request(
        f"http://{server.address}/metrics", headers={"Accept": accept}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def metered(mode, server):
    """An endpoint that has had predictions, a cold start, failures and a canary."""
    if mode == "http":
        pytest.skip("the readers of metrics do not depend on the clients' mode")
    common = {
        "serving_container_predict_route": "/predict",
        "serving_container_health_route": "/health",
    }
    good = aiplatform.Model.upload(
        display_name="m", serving_container_image_uri="echo:1", **common
    )
    bad = aiplatform.Model.upload(
        display_name="b", serving_container_image_uri="bad-canary", **common
    )
    endpoint = aiplatform.Endpoint.create(
        display_name="m", labels={"tategu-canary": "newest"}
    )
    machine = {"machine_type": "n1-standard-2"}
    endpoint.deploy(good, min_replica_count=0, max_replica_count=1, **machine)
    (first,) = [m.id for m in endpoint.list_models()]
    for _ in range(TRIES):
        model = aiplatform.Endpoint(endpoint.resource_name).gca_resource
        if not model.deployed_models[0].status.available_replica_count:
            break
        time.sleep(0.1)
    endpoint.predict(instances=[1])  # from zero
    endpoint.deploy(bad, traffic_percentage=50, **machine)
    for _ in range(TRIES):
        endpoint.predict(instances=[1])
        fresh = aiplatform.Endpoint(endpoint.resource_name)
        if fresh.traffic_split == {first: 100}:
            break
    assert fresh.traffic_split == {first: 100}
    yield endpoint
    endpoint.delete(force=True)


def queries():
    """The expressions of the dashboard, with its variables filled in."""
    board = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "1m")
            text = text.replace("$__range", "1h")
            text = text.replace("$project", ".*").replace("$endpoint", ".*")
            yield panel["title"], text


def test_dashboard_names_what_there_is(metered, server):
    """Every metric and every label that the dashboard uses is on /metrics."""
    text = fetch(server)
    samples = [
        line for line in text.splitlines() if line.startswith("tategu_")
    ]
    names = {re.split(r"[{ ]", line)[0] for line in samples}
    asked = 0
    for title, query in queries():
        for name in re.findall(r"\btategu_\w+", query):
            asked += 1
            assert name in names, (title, name)
        for labels in re.findall(r"by \(([^)]*)\)", query):
            for label in labels.split(", "):
                of = re.findall(r"\btategu_\w+", query)[0]
                assert any(
                    line.startswith(of) and f"{label}=" in line for line in samples
                ), (title, label)
    assert asked > 15


@pytest.fixture
def prometheus(tmp_path, server):
    """Debian's Prometheus on loopback, that scrapes the server; its address."""
    if not shutil.which("prometheus"):
        pytest.skip("there is no prometheus: apt-get install prometheus")
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "- job_name: tategu\n"
        f"  static_configs: [{{targets: ['{server.address}']}}]\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"]},
        )
    yield address
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def query(address, text):
    url = f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": text})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def test_prometheus_scrapes(metered, prometheus, server):
    """Prometheus takes what there is, and each panel of the dashboard has data."""
    of = f'{{endpoint="{metered.name}",status="200"}}'
    count = []
    for _ in range(TRIES):
        try:
            count = query(prometheus, f"sum(tategu_predictions_total{of})")
        except OSError:  # it starts
            count = []
        if count:
            break
        time.sleep(0.2)
    assert float(count[0]["value"][1]) > 1
    assert query(prometheus, "up")[0]["value"][1] == "1"
    for title, text in queries():
        if "rate(" in text or "increase(" in text:  # wants two scrapes
            for _ in range(TRIES):
                if query(prometheus, text):
                    break
                metered.predict(instances=[1])
                time.sleep(0.1)
        assert query(prometheus, text), title


def test_promtool_has_no_complaint(metered, server):
    if not shutil.which("promtool"):
        pytest.skip("there is no promtool: apt-get install prometheus")
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=fetch(server),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


CHECK = """
import json, sys
from datadog_checks.base.checks.openmetrics.v2.base import OpenMetricsBaseCheckV2
from datadog_checks.base.stubs import aggregator

instance = {
    "openmetrics_endpoint": sys.argv[1],
    "namespace": "tategu",
    "metrics": [
        {"tategu_predictions": "predictions"},
        {"tategu_prediction_duration_seconds": "prediction.duration"},
        {"tategu_replicas": "replicas"},
        {"tategu_rollouts": "rollouts"},
    ],
}
failure = OpenMetricsBaseCheckV2("tategu", {}, [instance]).run()
assert not failure, failure
print(json.dumps({name: [[m.value, m.tags] for m in aggregator.metrics(name)]
                  for name in aggregator.metric_names}))
"""


def test_datadog_check_scrapes(metered, server):
    """The unmodified OpenMetrics check of datadog-checks-base, in a Python of its own."""
    if not DATADOG.exists():
        pytest.skip(f"there is no datadog-checks-base: make {DATADOG.parent.parent}")
    url = f"http://{server.address}/metrics"
    environ = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    done = subprocess.run(
        [str(DATADOG), "-c", CHECK, url],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert "tategu.predictions.count" in seen
    assert "tategu.prediction.duration.count" in seen
    assert "tategu.replicas" in seen
    tags = [tags for _, tags in seen["tategu.rollouts.count"]]
    assert any(
        f"endpoint:{metered.name}" in t and "outcome:rolled_back" in t for t in tags
    )
