"""The endpoint's other protocols, by clients that know nothing of tategu.

tritonclient speaks the Open Inference Protocol; requests stands for what calls the
scoring routes of MLflow and SageMaker.
"""

import numpy as np
import pandas
import pytest
import requests
from google.api_core import exceptions
from google.cloud import aiplatform


@pytest.fixture
def base(mode, server, served_model):
    """An endpoint with the LightGBM model: its URL without the scheme, and its object."""
    endpoint = aiplatform.Endpoint.create(display_name="protocols")
    endpoint.deploy(served_model, machine_type="n1-standard-2")
    yield f"{server.address}/v1/{endpoint.resource_name}", endpoint
    endpoint.delete(force=True)


def test_scoring_requests(base, lightgbm_model):
    url, _ = base
    _, rows, want = lightgbm_model
    assert requests.get(f"http://{url}/ping").status_code == 200
    table = pandas.DataFrame(rows, columns=[f"Column_{i}" for i in range(4)])
    forms = [
        {"dataframe_split": table.to_dict(orient="split")},
        {"dataframe_records": table.to_dict(orient="records")},
        {"instances": rows},
        {"inputs": rows},
        {"inputs": table.to_dict(orient="list")},
    ]
    for form in forms:
        answer = requests.post(f"http://{url}/invocations", json=form)
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == pytest.approx(want, abs=1e-12), form
    for header in (True, False):
        answer = requests.post(
            f"http://{url}/invocations",
            data=table.to_csv(index=False, header=header),
            headers={"Content-Type": "text/csv", "Accept": "text/csv"},
        )
        assert answer.status_code == 200, answer.text
        assert [float(line) for line in answer.text.split()] == pytest.approx(want, abs=1e-12)
    answer = requests.post(f"http://{url}/invocations", json={"instances": [[1]]})
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "BAD_REQUEST"
    assert "has 4 features" in answer.json()["message"]


@pytest.mark.parametrize("binary", [True, False])
def test_open_inference_protocol(base, lightgbm_model, binary):
    triton = pytest.importorskip("tritonclient.http")
    url, endpoint = base
    _, rows, want = lightgbm_model
    model = endpoint.list_models()[0].display_name
    with triton.InferenceServerClient(url) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model)
        assert client.is_model_ready(model, "1")
        assert not client.is_model_ready("other")
        assert client.get_server_metadata()["name"] == "tategu"
        assert client.get_model_metadata(model)["inputs"][0]["shape"] == [-1, 4]
        for kind, exact in ((np.float64, 1e-12), (np.float32, 1e-6)):
            x = triton.InferInput("x", [5, 4], "FP64" if kind is np.float64 else "FP32")
            x.set_data_from_numpy(np.asarray(rows, dtype=kind), binary_data=binary)
            out = triton.InferRequestedOutput("predictions", binary_data=binary)
            for outputs in ([out], None):
                answer = client.infer(model, [x], outputs=outputs, request_id="r1")
                got = answer.as_numpy("predictions")
                assert got.dtype == np.float64
                assert got.tolist() == pytest.approx(want, abs=exact)
                assert answer.get_response()["id"] == "r1"
        columns = []
        for i in range(4):
            column = triton.InferInput(f"Column_{i}", [5, 1], "FP64")
            column.set_data_from_numpy(np.asarray(rows)[:, i : i + 1], binary_data=binary)
            columns.append(column)
        named = client.infer(model, columns, parameters={"raw_score": True})
        assert named.as_numpy("predictions").shape == (5,)
        with pytest.raises(triton.InferenceServerException, match="has 4 features"):
            x = triton.InferInput("x", [1, 2], "FP64")
            x.set_data_from_numpy(np.zeros((1, 2)), binary_data=binary)
            client.infer(model, [x])
        with pytest.raises(triton.InferenceServerException, match="is not supported"):
            client.get_model_repository_index()


def test_predictions_of_a_container_are_tensors(mode, server, echo_model):
    triton = pytest.importorskip("tritonclient.http")
    endpoint = aiplatform.Endpoint.create(display_name="echo")
    try:
        endpoint.deploy(echo_model, machine_type="n1-standard-2")
        with triton.InferenceServerClient(f"{server.address}/v1/{endpoint.resource_name}") as client:
            a = triton.InferInput("a", [2, 1], "INT64")
            a.set_data_from_numpy(np.asarray([[1], [2]]))
            b = triton.InferInput("b", [2, 2], "BYTES")
            b.set_data_from_numpy(np.asarray([["x", "y"], ["z", "\u00e9"]], dtype=object))
            answer = client.infer(endpoint.name, [a, b])
            assert answer.as_numpy("a").tolist() == [1, 2]
            assert answer.as_numpy("b").tolist() == [[b"x", b"y"], [b"z", "\u00e9".encode()]]
    finally:
        endpoint.delete(force=True)


def test_ways_to_predict_that_are_not_served_say_so(base):
    """Neither is half there: direct calls to a container's gRPC, and streams of tensors."""
    _, endpoint = base
    client = endpoint._prediction_client.select_version("v1")
    name = endpoint.resource_name
    one_way = [client.direct_predict, client.direct_raw_predict, client.server_streaming_predict]
    both_ways = [client.stream_direct_predict, client.stream_direct_raw_predict, client.streaming_predict, client.streaming_raw_predict]
    for call in one_way:
        method = call.__name__.replace("_", "")
        with pytest.raises(exceptions.MethodNotImplemented) as refused:
            answer = call(request={"endpoint": name})
            list(answer)
        assert method in str(refused.value).lower()
    for call in both_ways:
        # Over REST the client itself does not have these.
        with pytest.raises((exceptions.MethodNotImplemented, NotImplementedError)):
            list(call(requests=iter([{"endpoint": name}])))
