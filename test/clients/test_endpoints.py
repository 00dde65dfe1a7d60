"""Endpoints: deploy, predict, traffic, and failures that leave nothing behind."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform


@pytest.fixture
def endpoint(mode):
    """An endpoint that is emptied and deleted."""
    created = aiplatform.Endpoint.create(display_name="e")
    yield created
    created.delete(force=True)


def test_lightgbm_file_is_served_as_it_is(endpoint, served_model, lightgbm_model):
    _, rows, want = lightgbm_model
    endpoint.deploy(served_model, machine_type="n1-standard-2")
    answer = endpoint.predict(instances=rows)
    assert answer.predictions == pytest.approx(want, abs=1e-12)
    assert answer.model_version_id == "1"
    assert answer.deployed_model_id == endpoint.list_models()[0].id
    body = json.dumps({"instances": rows}).encode()
    raw = endpoint.raw_predict(body, {"Content-Type": "application/json"})
    assert raw.status_code == 200
    assert raw.json()["predictions"] == pytest.approx(want, abs=1e-12)


def test_xgboost_file_is_served_as_it_is(endpoint, served_xgboost, xgboost_model):
    booster, rows, want = xgboost_model
    endpoint.deploy(served_xgboost, machine_type="n1-standard-2")
    # The same digits as the library's: floats are exact in JSON's doubles.
    assert endpoint.predict(instances=rows).predictions == want
    named = [{f"f{i}": v for i, v in enumerate(row)} for row in rows]
    assert endpoint.predict(instances=named).predictions == want
    margins = endpoint.predict(instances=rows, parameters={"output_margin": True})
    xgboost = pytest.importorskip("xgboost")
    raw = booster.predict(xgboost.DMatrix(rows), output_margin=True)
    assert margins.predictions == raw.tolist()


def test_bad_row_is_the_callers_mistake(endpoint, served_model):
    endpoint.deploy(served_model, machine_type="n1-standard-2")
    # The client has its own error for a dedicated endpoint's answer.
    with pytest.raises((exceptions.BadRequest, ValueError), match="has 4 features"):
        endpoint.predict(instances=[[1.0, 2.0]])


def test_container_model(endpoint, echo_model):
    endpoint.deploy(echo_model, machine_type="n1-standard-2")
    instances = [{"a": [1, 2.5]}, "text", None, True]
    assert endpoint.predict(instances=instances).predictions == instances
    parts = endpoint.stream_raw_predict(
        json.dumps({"instances": [1, 2], "parameters": {"stream": True}}).encode(),
        {"Content-Type": "application/json"},
    )
    text = b"".join(p if isinstance(p, bytes) else p.encode() for p in parts)
    assert b'{"predictions": [1]}' in text
    assert b'{"predictions": [2]}' in text


def test_explanations(endpoint, mode, served_model):
    """Of a container that names its route; a model in the server has none."""
    named = aiplatform.Model.upload(
        display_name="explains",
        serving_container_image_uri="echo:1",
        serving_container_environment_variables={"TATEGU_EXPLAIN_ROUTE": "/why"},
    )
    endpoint.deploy(named, machine_type="n1-standard-2")
    answer = endpoint.explain(instances=[{"age": 0.5}, {"age": 3}], parameters={"top": 1})
    assert answer.predictions == [{"age": 0.5}, {"age": 3}]
    assert [type(e).to_dict(e)["attributions"][0]["feature_attributions"] for e in answer.explanations] == answer.predictions
    endpoint.deploy(served_model, machine_type="n1-standard-2", traffic_percentage=0)
    native = next(m.id for m in endpoint.list_models() if m.id != answer.deployed_model_id)
    with pytest.raises(exceptions.BadRequest, match="gives no explanations"):
        endpoint.explain(instances=[[1, 2, 3, 4]], deployed_model_id=native)


def test_two_models_share_traffic(endpoint, echo_model, served_model):
    endpoint.deploy(echo_model, machine_type="n1-standard-2")
    first = endpoint.list_models()[0].id
    endpoint.deploy(served_model, machine_type="n1-standard-2", traffic_percentage=30)
    ids = {m.id for m in endpoint.list_models()}
    second = (ids - {first}).pop()
    assert endpoint.traffic_split == {first: 70, second: 30}
    endpoint.undeploy(second, traffic_split={first: 100})
    assert endpoint.traffic_split == {first: 100}
    assert [m.id for m in endpoint.list_models()] == [first]


def test_deployed_model_and_its_endpoint_stay(endpoint, echo_model):
    endpoint.deploy(echo_model, machine_type="n1-standard-2")
    with pytest.raises(exceptions.BadRequest, match="deployed"):
        echo_model.delete()
    with pytest.raises(exceptions.BadRequest, match="deployed"):
        endpoint.delete()


def test_failed_deploy_leaves_nothing(endpoint):
    model = aiplatform.Model.upload(
        display_name="crash", serving_container_image_uri="crash"
    )
    with pytest.raises(exceptions.GoogleAPICallError) as failure:
        endpoint.deploy(model, machine_type="n1-standard-2")
    assert "3" in str(failure.value)
    assert "no weights here" in str(failure.value)
    again = aiplatform.Endpoint(endpoint.resource_name)
    assert again.list_models() == []
    assert dict(again.traffic_split) == {}
    model.delete()


def replicas(endpoint):
    """How many replicas the one deployed model has."""
    fresh = aiplatform.Endpoint(endpoint.resource_name)
    (model,) = fresh.gca_resource.deployed_models
    return model.status.available_replica_count, model.status.message


def test_scales_to_zero_and_back(endpoint, echo_model, server):
    """Nothing runs when idle (here after a second), and nobody is refused after it."""
    endpoint.deploy(
        echo_model,
        machine_type="n1-standard-2",
        min_replica_count=0,
        max_replica_count=2,
    )
    for _ in range(300):
        ready, why = replicas(endpoint)
        if ready == 0:
            break
        time.sleep(0.1)
    assert ready == 0, why
    assert "1s" in why
    told = server.command("why", endpoint.resource_name)
    assert f"({echo_model.display_name}): 100% of the traffic" in told
    assert why.partition(". ")[0] in told

    def ask(i):
        return endpoint.predict(instances=[i]).predictions

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == [[i] for i in range(20)]


def test_invoke(endpoint, mode):
    """Any route of the server; the SDK goes to the endpoint's own address."""
    if mode == "http":
        pytest.skip("the SDK sends invoke with its credentials over TLS only")
    model = aiplatform.Model.upload(
        display_name="routes",
        serving_container_image_uri="echo:1",
        serving_container_health_route="/health",
        serving_container_invoke_route_prefix="/*",
    )
    endpoint.deploy(model, machine_type="n1-standard-2")
    body = json.dumps({"instances": [7]}).encode()
    headers = {"Content-Type": "application/json"}
    answer = endpoint.invoke("/v1/chat/completions", body, headers)
    assert answer.status_code == 200
    assert answer.json() == {"predictions": [7]}
    (deployed,) = endpoint.list_models()
    stream = json.dumps({"instances": [1, 2], "parameters": {"stream": True}}).encode()
    parts = endpoint.invoke(
        "/lines", stream, headers, deployed_model_id=deployed.id, stream=True
    )
    assert [json.loads(p) for p in parts] == [{"predictions": [1]}, {"predictions": [2]}]
    endpoint.undeploy_all()
    model.delete()
