"""Custom prediction routines, served by the SDK's own model server without an image.

Predictors and handlers are written against google.cloud.aiplatform.prediction as for
LocalModel.build_cpr_model; their sources are uploaded beside the model.
"""

import concurrent.futures
import json
import shutil
import subprocess
import uuid

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform

# Each deployment starts Python: one way to the server is enough.
pytestmark = pytest.mark.parametrize("mode", ["http"], indirect=True)

WEIGHTED = '''
import json
import os
import time

from fastapi import HTTPException
from google.cloud import storage
from google.cloud.aiplatform.prediction.predictor import Predictor

from helper import Weights


class Weighted(Predictor):
    def load(self, artifacts_uri):
        bucket, _, prefix = artifacts_uri.removeprefix("gs://").partition("/")
        text = storage.Client().bucket(bucket).blob(prefix + "/weights.json").download_as_text()
        self.weights = Weights(json.loads(text))
        with open("unit.txt") as f:
            self.unit = f.read()

    def preprocess(self, prediction_input):
        if "instances" not in prediction_input:
            raise HTTPException(status_code=422, detail="no instances for me")
        return prediction_input["instances"]

    def predict(self, instances):
        time.sleep(0.2 if instances == [[0, 0]] else 0)
        return [self.weights.of(row) for row in instances]

    def postprocess(self, results):
        return {"predictions": [{"score": r, "unit": self.unit, "process": os.getpid()} for r in results]}
'''

HELPER = """
class Weights:
    def __init__(self, values):
        self.values = values

    def of(self, row):
        return sum(w * x for w, x in zip(self.values, row, strict=True))
"""

HANDLER = """
from fastapi import Response
from google.cloud.aiplatform.prediction.handler import Handler


class Upper(Handler):
    def __init__(self, artifacts_uri, predictor=None):
        assert predictor is None
        self.uri = artifacts_uri

    async def handle(self, request):
        body = await request.body()
        return Response(content=body.upper(), media_type="text/plain", status_code=201)
"""

SKLEARN = """
import numpy as np
from google.cloud.aiplatform.prediction.sklearn.predictor import SklearnPredictor


class Doubled(SklearnPredictor):
    def preprocess(self, prediction_input):
        return super().preprocess(prediction_input) * np.float64(2)
"""

TRAIN = """
import json, sys
import joblib, numpy as np
from sklearn.linear_model import LinearRegression
rng = np.random.default_rng(3)
X = rng.normal(size=(50, 3))
model = LinearRegression().fit(X, X @ [1, 2, 3] + 0.5)
joblib.dump(model, sys.argv[1])
print(json.dumps({"rows": X[:4].tolist(), "want": model.predict(X[:4] * 2).tolist()}))
"""


@pytest.fixture
def endpoint(mode):
    """An endpoint that is emptied and deleted."""
    created = aiplatform.Endpoint.create(display_name="routines")
    yield created
    created.delete(force=True)


@pytest.fixture
def upload(bucket):
    """A function that uploads files as the artifact of a routine."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not on this machine")

    def uploaded(files, image="tategu/cpr:3.11", **env):
        folder = uuid.uuid4().hex[:8]
        for name, content in files.items():
            bucket.blob(f"{folder}/{name}").upload_from_string(content)
        return aiplatform.Model.upload(
            display_name="routine",
            artifact_uri=f"gs://{bucket.name}/{folder}",
            serving_container_image_uri=image,
            serving_container_environment_variables=env or None,
        )

    return uploaded


def test_predictor_of_ones_own(endpoint, upload):
    model = upload(
        {"src/predictor.py": WEIGHTED, "src/helper.py": HELPER, "src/unit.txt": "kg", "weights.json": "[2, 3]"},
        VERTEX_CPR_WEB_CONCURRENCY="2",
    )
    endpoint.deploy(model, machine_type="n1-standard-2")
    got = endpoint.predict(instances=[[1, 1], [0.5, 2]]).predictions
    assert [(p["score"], p["unit"]) for p in got] == [(5, "kg"), (7, "kg")]
    body = json.dumps({"rows": []}).encode()
    refused = endpoint.raw_predict(body, {"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["detail"]) == (422, "no instances for me")
    refused = endpoint.raw_predict(b"1 1", {"Content-Type": "text/plain"})
    assert refused.status_code == 400
    assert "Unsupported content type" in refused.json()["detail"]
    body = json.dumps({"instances": [[1]]}).encode()
    failed = endpoint.raw_predict(body, {"Content-Type": "application/json"})
    assert failed.status_code == 500
    assert "ValueError" in failed.json()["detail"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        both = pool.map(lambda _: endpoint.predict(instances=[[0, 0]]).predictions[0]["process"], range(8))
        assert len(set(both)) == 2


def test_handler_of_ones_own(endpoint, upload):
    model = upload({"shout.py": HANDLER}, HANDLER_MODULE="shout", HANDLER_CLASS="Upper")
    endpoint.deploy(model, machine_type="n1-standard-2")
    answer = endpoint.raw_predict(b"loud", {"Content-Type": "text/plain"})
    assert (answer.status_code, answer.text) == (201, "LOUD")


def test_sklearn_predictor(endpoint, upload, tmp_path):
    path = tmp_path / "model.joblib"
    uv = [shutil.which("uv"), "run", "--quiet", "--no-project", "--python", "3.11", "--with", "scikit-learn==1.6.*", "--with", "joblib"]
    run = subprocess.run([*uv, "python", "-c", TRAIN, str(path)], capture_output=True, text=True)
    if "Failed to fetch" in run.stderr or "No solution found" in run.stderr:
        pytest.skip("scikit-learn is not to be had")
    assert run.returncode == 0, run.stderr
    data = json.loads(run.stdout)
    model = upload({"predictor.py": SKLEARN, "requirements.txt": "scikit-learn==1.6.*\njoblib\n", "model.joblib": path.read_bytes()})
    endpoint.deploy(model, machine_type="n1-standard-2")
    assert endpoint.predict(instances=data["rows"]).predictions == pytest.approx(data["want"])
    body = json.dumps({"instances": data["rows"]}).encode()
    raw = endpoint.raw_predict(body, {"Content-Type": "application/json"})
    assert raw.json()["predictions"] == pytest.approx(data["want"])


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"predictor.py": "x = 1\n"}, "no Predictor: set PREDICTOR_CLASS"),
        ({"other.py": "x = 1\n"}, "no module predictor in"),
        ({"predictor.py": "import notthere\n"}, "notthere"),
        ({"model.bin": "x"}, "no sources of a predictor"),
        ({"predictor.py": "", "requirements.txt": "./mine.tar.gz"}, "path of this machine"),
    ],
)
def test_what_cannot_be_served(endpoint, upload, files, says):
    model = upload(files)
    with pytest.raises(exceptions.GoogleAPICallError) as failure:
        endpoint.deploy(model, machine_type="n1-standard-2")
    assert says in str(failure.value)
    assert endpoint.list_models() == []
