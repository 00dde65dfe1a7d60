"""Archives of TorchServe: uploaded, deployed and asked through the unmodified client.

Needs a Python with the packages torchserve and torch, named by TATEGU_TEST_TORCHSERVE.
"""

import io
import json
import os
import zipfile

import pytest
from google.cloud import aiplatform
from test_jobs import predicted

pytestmark = pytest.mark.skipif(
    not os.environ.get("TATEGU_TEST_TORCHSERVE"),
    reason="TATEGU_TEST_TORCHSERVE names no Python with the packages torchserve and torch",
)

PREBUILT = "us-docker.pkg.dev/vertex-ai/prediction/pytorch-cpu.2-1:latest"
NETWORK = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return x.sum(1)
"""
HANDLER = """
import torch
from ts.torch_handler.base_handler import BaseHandler

class Handler(BaseHandler):
    def initialize(self, context):
        from network import Net
        self.model, self.context, self.device, self.manifest, self.initialized = Net(), context, "cpu", context.manifest, True

    def preprocess(self, data):
        return torch.tensor(data, dtype=torch.float32)

    def postprocess(self, out):
        return out.tolist()

    def explain_handle(self, data, rows):
        return [{"weights": [1.0] * data.shape[1]} for _ in range(len(data))]
"""


def archive(handler=HANDLER):
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "model": {"modelName": "net", "handler": "handler.py", "modelFile": "network.py", "modelVersion": "1.0"},
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        z.writestr("handler.py", handler)
        z.writestr("network.py", NETWORK)
    return data.getvalue()


@pytest.fixture
def endpoint(mode):
    """An endpoint that is emptied and deleted."""
    created = aiplatform.Endpoint.create(display_name="torch")
    yield created
    created.delete(force=True)


def upload(bucket, folder, files, image=PREBUILT):
    for name, data in files.items():
        bucket.blob(f"{folder}/{name}").upload_from_string(data)
    return aiplatform.Model.upload(display_name=folder, artifact_uri=f"gs://{bucket.name}/{folder}", serving_container_image_uri=image)


def test_archive(endpoint, bucket, server):
    model = upload(bucket, "net", {"model.mar": archive()})
    endpoint.deploy(model, machine_type="n1-standard-2")
    assert endpoint.predict(instances=[[1, 2], [3, 4.5]]).predictions == [3, 7.5]
    answer = endpoint.raw_predict(body=b'{"instances": [[5, 6]]}', headers={"Content-Type": "application/json"})
    assert json.loads(answer.content) == {"predictions": [11]}
    explained = endpoint.explain(instances=[[1, 2], [3, 4.5]])
    assert explained.predictions == [3, 7.5]
    assert explained.deployed_model_id == endpoint.list_models()[0].id
    features = [type(e).to_dict(e)["attributions"][0]["feature_attributions"] for e in explained.explanations]
    assert features == [{"weights": [1, 1]}] * 2
    told = server.command("why", endpoint.resource_name)
    assert "workers of a replica: 1 of 1 to 2 workers, each with" in told, told


def test_batch_prediction(mode, bucket):
    model = upload(bucket, "batch", {"model.mar": archive()})
    rows = [[n, 2 * n] for n in range(100)]
    assert predicted(bucket, model, rows) == [sum(row) for row in rows]


def test_broken_archive(endpoint, bucket):
    model = upload(bucket, "broken", {"net.mar": archive("raise RuntimeError('this cannot be loaded')\n")}, "tategu/torchserve")
    with pytest.raises(Exception, match="this cannot be loaded"):
        endpoint.deploy(model, machine_type="n1-standard-2")


FUNCTIONS = """
def before(data, context):
    return data and [bytes(row["body"]) if isinstance(row["body"], (bytes, bytearray)) else str(sum(row["body"])).encode() for row in data]

def after(data, context):
    return data and [b"[" + bytes(row["body"]) + b"]" for row in data]
"""
DOUBLE = """
class Handler:
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        return [str(2 * int(bytes(row["body"]))).encode() for row in data]
"""


def workflow():
    manifest = {"runtime": "python", "workflow": {"workflowName": "w", "specFile": "spec.yaml", "handler": "functions.py"}}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("WAR-INF/MANIFEST.json", json.dumps(manifest))
        z.writestr("functions.py", FUNCTIONS)
        z.writestr("spec.yaml", "models:\n  double: {url: double.mar}\ndag:\n  before: [double]\n  double: [after]\n")
    return data.getvalue()


def test_workflow(mode, endpoint, bucket):
    """A workflow with its models beside it is deployed as a model is, and predicts in a batch."""
    model = upload(bucket, "flow", {"flow.war": workflow(), "double.mar": archive(DOUBLE)})
    endpoint.deploy(model, machine_type="n1-standard-2")
    assert endpoint.predict(instances=[[1, 2], {"b64": "MjE="}, [3, 4]]).predictions == [[6], [42], [14]]
    answer = endpoint.raw_predict(body=b"5", headers={"Content-Type": "application/octet-stream"})
    assert answer.content == b"[10]"
    with pytest.raises(Exception, match="gives no explanations"):
        endpoint.explain(instances=[[1, 2]])
    bucket.blob("flow.jsonl").upload_from_string("".join(f"[{n}, 1]\n" for n in range(50)))
    job = model.batch_predict(
        job_display_name="bp",
        gcs_source=f"gs://{bucket.name}/flow.jsonl",
        gcs_destination_prefix=f"gs://{bucket.name}/flowout",
        instances_format="jsonl",
        predictions_format="jsonl",
        machine_type="n1-standard-2",
    )
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    lines = [json.loads(line) for blob in job.iter_outputs() if "prediction.results" in blob.name for line in blob.download_as_text().splitlines()]
    assert sorted((line["instance"][0], line["prediction"][0]) for line in lines) == [(n, 2 * (n + 1)) for n in range(50)]
