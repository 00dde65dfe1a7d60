"""ONNX models: uploaded, deployed and asked through the unmodified client."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")

PREBUILT = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-3:latest"


@pytest.fixture(scope="module")
def forest():
    """A classifier, rows, and what Python's onnxruntime answers to them."""
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    random = np.random.default_rng(3)
    x = random.normal(size=(100, 4)).astype("f4")
    model = RandomForestClassifier(5, random_state=1).fit(x, (x[:, 0] > 0).astype(int))
    data = skl2onnx.to_onnx(model, x[:1], target_opset=17).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    labels, chances = session.run(None, {"X": x[:5]})
    want = [
        {"output_label": int(label), "output_probability": pytest.approx({str(k): v for k, v in chance.items()}, abs=1e-6)}
        for label, chance in zip(labels, chances, strict=True)
    ]
    return data, x[:5].tolist(), want


@pytest.fixture
def endpoint(mode):
    """An endpoint that is emptied and deleted."""
    created = aiplatform.Endpoint.create(display_name="onnx")
    yield created
    created.delete(force=True)


def upload(bucket, folder, files, image=PREBUILT, variables=None):
    for name, data in files.items():
        bucket.blob(f"{folder}/{name}").upload_from_string(data)
    return aiplatform.Model.upload(
        display_name=folder, artifact_uri=f"gs://{bucket.name}/{folder}", serving_container_image_uri=image, serving_container_environment_variables=variables
    )


def test_classifier(endpoint, bucket, forest):
    data, rows, want = forest
    model = upload(bucket, "forest", {"model.onnx": data})
    endpoint.deploy(model, machine_type="n1-standard-2")
    assert endpoint.predict(instances=rows).predictions == want
    assert endpoint.predict(instances=[{"X": rows[0]}]).predictions == want[:1]
    # The client has its own error for a dedicated endpoint's answer.
    with pytest.raises((exceptions.BadRequest, ValueError), match=r"instance 1: input .*want shape \[4\], got shape \[2\]"):
        endpoint.predict(instances=[rows[0], [1, 2]])
    kill_runner(bucket.name)
    assert endpoint.predict(instances=rows).predictions == want, "after the runner was killed"


def test_tract(endpoint, bucket, forest):
    """A net by Tract, and what Tract does not know."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(4).normal(size=(4, 3)).astype("f4")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])],
        "net",
        [value("x", TensorProto.FLOAT, [None, 4])],
        [value("y", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    by_tract = {"TATEGU_ONNX_ENGINE": "tract"}
    data, rows, _ = forest
    model = upload(bucket, "tract-net", {"model.onnx": net}, variables=by_tract)
    endpoint.deploy(model, machine_type="n1-standard-2")
    want = np.tanh(np.array(rows, "f4") @ weights)
    assert np.allclose(endpoint.predict(instances=rows).predictions, want, atol=1e-5)
    trees = upload(bucket, "tract-forest", {"model.onnx": data}, variables=by_tract)
    with pytest.raises(exceptions.GoogleAPICallError, match="Tract knows the operators of neural nets alone"):
        endpoint.deploy(trees, machine_type="n1-standard-2")


def kill_runner(bucket):
    """Kills the runner of the bucket's model, as a crash of the library would."""
    killed = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if command.split(b"\0")[0].endswith(b"/tategu-runner") and f"/{bucket}/".encode() in command:
            os.kill(int(path.parent.name), signal.SIGKILL)
            killed += 1
    assert killed == 1


def test_samples_guard_a_deployment(endpoint, bucket, forest):
    data, rows, want = forest
    line = {"instance": rows[0], "prediction": {"output_label": want[0]["output_label"], "output_probability": {"0": 0.5, "1": 0.5}}}
    wrong = upload(bucket, "wrong", {"model.onnx": data, "tategu-samples.jsonl": json.dumps(line)})
    with pytest.raises(exceptions.GoogleAPICallError, match=r"line 1 of .*tategu-samples\.jsonl: the model predicts") as failed:
        endpoint.deploy(wrong, machine_type="n1-standard-2")
    assert "cause: model" in str(failed.value)
    assert endpoint.list_models() == []
    line["prediction"] = {"output_label": want[0]["output_label"], "output_probability": dict(want[0]["output_probability"].expected)}
    right = upload(bucket, "right", {"model.onnx": data, "tategu-samples.jsonl": json.dumps(line)})
    endpoint.deploy(right, machine_type="n1-standard-2")
    assert endpoint.predict(instances=rows).predictions == want


def test_damaged_file_is_the_models_fault(endpoint, bucket, forest):
    data, _, _ = forest
    model = upload(bucket, "damaged", {"model.onnx": data[: len(data) // 2]})
    with pytest.raises(exceptions.GoogleAPICallError, match=r"model\.onnx cannot be served") as failed:
        endpoint.deploy(model, machine_type="n1-standard-2")
    assert "cause: model" in str(failed.value)
    assert endpoint.list_models() == []


def test_nothing_is_told_to_the_makers_of_the_library(tmp_path, forest):
    """ONNX Runtime keeps what it will send of models in the cache of its user."""
    (tmp_path / "model.onnx").write_bytes(forest[0])
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    runner = Path(os.environ["TATEGU_BIN"]).parent / "tategu-runner"
    home = tmp_path / "home"
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # It keeps quiet in CI by itself; no variable of this machine's is to help.
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "AIP_HTTP_PORT": str(port), "TATEGU_ONNXRUNTIME": str(library)}
    with subprocess.Popen([runner, tmp_path / "model.onnx"], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert "the model is loaded" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert list(home.iterdir()) == []


def test_programs_ask_not_to_be_tracked(endpoint, bucket, forest):
    endpoint.deploy(upload(bucket, "quiet", {"model.onnx": forest[0]}, variables={"DO_NOT_TRACK": "0"}), machine_type="n1-standard-2")
    seen = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, env = (path / "cmdline").read_bytes(), (path / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        if b"tategu-runner" in command and f"AIP_ENDPOINT_ID={endpoint.name}" in env:
            seen.append(env)
    assert seen
    for env in seen:
        assert "ORT_DISABLE_TELEMETRY=1" in env
        assert "DO_NOT_TRACK=0" in env  # the model's own
