"""A model that the SDK registered, by the loader: pull, and the route of model serve."""

import http.client
import json
import os
import re
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from google.cloud import aiplatform

from server import binary, clean_env


class Loader:
    """A running `tategu model serve`."""

    def __init__(self, server, *flags):
        command = [binary(), "model", "serve", "--listen", "127.0.0.1:0", *flags]
        self.process = subprocess.Popen(
            [*command, "--data", str(server.data)],
            stdout=subprocess.PIPE,
            text=True,
            env=clean_env(),
        )
        line = self.process.stdout.readline()
        self.port = int(re.search(r"^models are on http://\S+:(\d+)/", line)[1])

    def get(self, path, **headers):
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        return answer.status, answer.headers, json.loads(body) if body else None

    def end(self):
        """Stop it as a supervisor does; it ends at once and well."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0
        self.process.stdout.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of models of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def registered(mode, bucket):
    """Register versions of a model with the unmodified SDK."""
    name = f"loaded-{uuid.uuid4().hex[:8]}"

    def upload(n, files):
        for path, text in files.items():
            bucket.blob(f"m/{n}/{path}").upload_from_string(text)
        known = {"parent_model": name} if n > 1 else {"model_id": name}
        model = aiplatform.Model.upload(
            display_name=name,
            artifact_uri=f"gs://{bucket.name}/m/{n}",
            serving_container_image_uri="echo:1",
            version_aliases=["champion"],
            **known,
        )
        assert model.version_id == str(n)
        return model.resource_name

    return upload


def content(folder):
    """Names and texts below a folder."""
    files = (p for p in Path(folder).rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_text() for p in files}


def test_pull(server, registered, cache):
    first = {"model.bin": "one" * 9999, "deep/words.txt": "ü"}
    name = registered(1, first)
    folder = server.command("model", "pull", f"{name}@champion").strip()
    assert content(folder) == first
    second = {**first, "model.bin": "two" * 9999}
    registered(2, second)
    told = json.loads(server.command("model", "pull", f"{name}@champion", "--json"))
    assert told["version"] == "2"
    assert content(told["path"]) == second
    assert os.path.samefile(f"{folder}/deep/words.txt", f"{told['path']}/deep/words.txt")
    assert server.command("model", "pull", f"{name}@1").strip() == folder


def test_route(server, registered, cache):
    name = registered(1, {"model.bin": "one"})
    loader = Loader(server, "--interval", "200ms")
    try:
        status, headers, told = loader.get(f"/models/{name}@champion")
        assert (status, told["version"]) == (200, "1")
        assert set(told["aliases"]) == {"champion", "default"}
        assert content(told["path"]) == {"model.bin": "one"}
        known = {"If-None-Match": headers["ETag"]}
        assert loader.get(f"/models/{name}@champion", **known)[0] == 304
        assert loader.get(f"/models/{name}@champion?wait=1s", **known)[0] == 304
        registered(2, {"model.bin": "two"})
        status, _, told = loader.get(f"/models/{name}@champion?wait=60s", **known)
        assert (status, told["version"]) == (200, "2")
        assert content(told["path"]) == {"model.bin": "two"}
        # What was told of stays, the version before it too.
        kept = server.command("model", "prune", "--older-than", "0s")
        assert kept.count(f"in use: {Path(name).name}@") == 2
        status, _, told = loader.get(f"/models/{name}@loser")
        assert (status, told["error"]["code"]) == (404, 404)
        assert "tategu model show" in told["error"]["next_step"]
        status, _, told = loader.get("/models/x", Host="evil.example")
        assert status == 403
    finally:
        loader.end()


def test_the_route_outlives_the_server(registered_server, cache):
    """Last good while the server is away, and a server at another port is found."""
    server, start, upload = registered_server
    upload(1, "one")
    loader = Loader(server, "--interval", "100ms")
    try:
        path = "/models/lone@champion"
        _, headers, told = loader.get(path)
        assert told["version"] == "1"
        server.process.kill()
        server.process.wait()
        stale = wait_for(lambda: loader.get(path)[2], lambda t: t.get("stale"))
        assert stale["version"] == "1"
        other = Loader(server)  # started while the server is away
        try:
            told = other.get(path)[2]
            assert (told["version"], bool(told["stale"])) == ("1", True)
        finally:
            other.end()
        server = start()
        upload(2, "two")
        known = {"If-None-Match": headers["ETag"]}
        status, _, told = loader.get(f"{path}?wait=60s", **known)
        assert (status, told["version"]) == (200, "2")
        assert "stale" not in told
    finally:
        loader.end()


@pytest.fixture
def registered_server(tmp_path):
    """A server of the test's own, as it is started again, and uploads to it."""
    from server import Server

    servers = []

    def start():
        servers.append(Server(tmp_path, "buckets: [lone]\n"))
        return servers[-1]

    def upload(n, text):
        server, parent = servers[-1], "projects/tategu/locations/us-central1"
        server.put("lone", f"{n}/model.bin", text.encode())
        model = {
            "displayName": "lone",
            "artifactUri": f"gs://lone/{n}",
            "versionAliases": ["champion"],
        }
        where = {"parentModel": f"{parent}/models/lone"} if n > 1 else {"modelId": "lone"}
        body = json.dumps({"model": model, **where}).encode()
        server.request("POST", f"/v1/{parent}/models:upload", body)

    yield start(), start, upload
    for server in servers:
        server.stop()


def wait_for(ask, enough):
    """Ask until an answer is enough."""
    deadline = time.monotonic() + 30
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer
