"""A canary that is worse than its baseline goes by itself; the SDK says so by labels."""

import http.client
import json
import threading
import time
from collections import Counter

import pytest
from google.cloud import aiplatform

RATE = 200
THREADS = 8


class Load:
    """Predictions at a steady rate, over plain HTTP."""

    def __init__(self, server, endpoint):
        self.address = server.address
        self.path = f"/v1/{endpoint.resource_name}:predict"
        self.answers = Counter()
        self.by = Counter()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def run(self):
        """Send every THREADS-th request at its time, late or not."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        at = time.monotonic()
        while not self.over.is_set():
            at += THREADS / RATE
            time.sleep(max(0, at - time.monotonic()))
            body = json.dumps({"instances": [1]})
            connection.request(
                "POST", self.path, body, {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            text = json.loads(answer.read())
            with self.lock:
                self.answers[answer.status] += 1
                self.by[text.get("deployedModelId")] += 1
        connection.close()

    def total(self):
        with self.lock:
            return sum(self.answers.values())

    def wait(self, more):
        """Wait for so many more answers."""
        until = self.total() + more
        while self.total() < until:
            time.sleep(0.02)

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def canary_endpoint(mode):
    endpoint = aiplatform.Endpoint.create(
        display_name="canary", labels={"tategu-canary": "newest"}
    )
    yield endpoint
    endpoint.delete(force=True)


@pytest.fixture
def bad_model(mode):
    return aiplatform.Model.upload(
        display_name="bad-canary",
        serving_container_image_uri="bad-canary",
        serving_container_predict_route="/predict",
        serving_container_health_route="/health",
    )


def status(endpoint, deployed):
    fresh = aiplatform.Endpoint(endpoint.resource_name).gca_resource
    (model,) = [m for m in fresh.deployed_models if m.id == deployed]
    return model.status.message, dict(fresh.traffic_split)


def test_bad_canary_goes_by_itself(canary_endpoint, echo_model, bad_model, server):
    endpoint = canary_endpoint
    endpoint.deploy(echo_model, machine_type="n1-standard-2")
    (first,) = [m.id for m in endpoint.list_models()]
    load = Load(server, endpoint)
    try:
        load.wait(100)
        endpoint.deploy(bad_model, machine_type="n1-standard-2", traffic_percentage=5)
        (second,) = {m.id for m in endpoint.list_models()} - {first}
        begun = load.total()
        for _ in range(600):
            told, split = status(endpoint, second)
            if split == {first: 100}:
                break
            time.sleep(0.05)
        over = load.total()
        load.wait(500)
    finally:
        load.stop()
    assert split == {first: 100}, told
    assert over - begun < 5 * RATE
    # Predictions may be sent twice: what the canary could not answer, the other did.
    assert load.answers == {200: load.total()}
    assert load.by == {first: load.total()}
    assert "Rolled back at" in told
    assert "requests failed" in told
    said = server.command("why", endpoint.resource_name)
    assert "Rolled back at" in said
    assert "Rolled back at" in server.command("rollout", endpoint.resource_name)


def test_rollout_command(endpoint_of_two_steps, echo_model, server):
    """The command line deploys a canary; a good one goes through its steps."""
    endpoint = endpoint_of_two_steps
    endpoint.deploy(echo_model, machine_type="n1-standard-2")
    (first,) = [m.id for m in endpoint.list_models()]
    out = server.command(
        *("rollout", endpoint.resource_name, "--model", echo_model.display_name),
        *("--canary", "10%", "--step", "50%,100%", "--every", "1s"),
        *("--min-requests", "2", "--max-p99", "20s"),
    )
    assert "has 10% of the traffic" in out
    (second,) = {m.id for m in endpoint.list_models()} - {first}
    labels = aiplatform.Endpoint(endpoint.resource_name).labels
    assert labels["tategu-canary"] == second
    assert labels["tategu-canary-steps"] == "50-100"
    assert labels["team"] == "x"
    load = Load(server, endpoint)
    try:
        for _ in range(600):
            told, split = status(endpoint, second)
            if split == {second: 100}:
                break
            time.sleep(0.05)
    finally:
        load.stop()
    assert split == {second: 100}, told
    assert "Promoted at" in told
    assert load.answers == {200: load.total()}


@pytest.fixture
def endpoint_of_two_steps(mode):
    endpoint = aiplatform.Endpoint.create(display_name="steps", labels={"team": "x"})
    yield endpoint
    endpoint.delete(force=True)


def test_canary_is_taken_back_by_hand(endpoint_of_two_steps, echo_model, server):
    endpoint = endpoint_of_two_steps
    endpoint.deploy(echo_model, machine_type="n1-standard-2")
    (first,) = [m.id for m in endpoint.list_models()]
    server.command(
        "rollout", endpoint.resource_name, "--model", echo_model.resource_name
    )
    (second,) = {m.id for m in endpoint.list_models()} - {first}
    assert status(endpoint, second)[1] == {first: 95, second: 5}
    server.command("rollout", endpoint.resource_name, "--back")
    assert status(endpoint, second)[1] == {first: 100}


def test_rule_is_checked(mode):
    with pytest.raises(Exception, match="tategu-canary-max-errors"):
        aiplatform.Endpoint.create(
            display_name="e",
            labels={"tategu-canary": "newest", "tategu-canary-max-errors": "many"},
        )


@pytest.fixture
def following_endpoint(mode):
    endpoint = aiplatform.Endpoint.create(
        display_name="following", labels={"tategu-follow": "champion"}
    )
    yield endpoint
    endpoint.delete(force=True)


def upload(image, parent=None, aliases=None):
    return aiplatform.Model.upload(
        display_name="followed",
        serving_container_image_uri=image,
        serving_container_predict_route="/predict",
        serving_container_health_route="/health",
        parent_model=parent and parent.resource_name,
        version_aliases=aliases,
        is_default_version=parent is None,
    )


def until(endpoint, text):
    """Wait until the only deployed model says a text; give its version, and what it follows."""
    for _ in range(1200):
        models = aiplatform.Endpoint(endpoint.resource_name).gca_resource
        (*others, last) = models.deployed_models
        if not others and text in last.status.message:
            _, *told = last.status.message.partition("Follows")
            return last.model_version_id, "".join(told)
        time.sleep(0.05)
    raise AssertionError(f"no {text!r} in {models}")


def test_endpoint_follows_an_alias(following_endpoint, server):
    """As the alias moves under load nothing fails; a bad version is not tried again."""
    endpoint = following_endpoint
    first = upload("echo", aliases=["champion"])
    second = upload("echo", first)
    third = upload("crash", first)
    registry = first.versioning_registry
    endpoint.deploy(first, machine_type="n1-standard-2", max_replica_count=2)
    until(endpoint, "Follows the alias champion of ")
    load = Load(server, endpoint)
    try:
        load.wait(100)
        registry.add_version_aliases(["champion"], version=second.version_id)
        version, _ = until(endpoint, f"version {second.version_id}, since ")
        load.wait(100)
        assert version == second.version_id
        (model,) = endpoint.list_models()
        assert model.dedicated_resources.max_replica_count == 2

        registry.add_version_aliases(["champion"], version=third.version_id)
        version, told = until(endpoint, f"version {third.version_id} did not take over")
        assert version == second.version_id
        assert "it was not deployed: " in told
        load.wait(200)
        assert until(endpoint, "did not take over") == (version, told)
        assert [m.id for m in endpoint.list_models()] == [model.id]
    finally:
        load.stop()
    assert load.answers == {200: load.total()}
    assert load.by[model.id] >= 200

    # The label is taken away: what is deployed stays, wherever the alias goes. (The
    # client takes labels={} for nothing to be changed.)
    endpoint.update(labels={"team": "x"})
    registry.add_version_aliases(["champion"], version=first.version_id)
    assert until(endpoint, "replicas ready") == (second.version_id, "")
    assert [m.id for m in endpoint.list_models()] == [model.id]
    endpoint.undeploy_all()
    first.delete()
