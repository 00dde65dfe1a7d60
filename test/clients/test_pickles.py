"""Models of the prebuilt images that are pickles, served in the library's own version.

They are trained in environments of those versions, which uv makes; the predictions
have to be what the library gives there.
"""

import json
import shutil
import subprocess
import uuid

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform

# Each deployment starts Python: one way to the server is enough.
pytestmark = pytest.mark.parametrize("mode", ["http"], indirect=True)

PREBUILT = "us-docker.pkg.dev/vertex-ai/prediction/"

TRAIN = """
import json, pickle, sys
import joblib, numpy as np, pandas as pd
rng = np.random.default_rng(3)
X = rng.normal(size=(200, 4)); y = (X[:, 0] * X[:, 1] > 0).astype(int)
kind, path = sys.argv[1:]
rows = X[:5].tolist()
if kind == "forest":
    from sklearn.ensemble import RandomForestClassifier
    model = RandomForestClassifier(10, n_jobs=-1, random_state=0).fit(X, y)
    want = model.predict(np.asarray(rows))
elif kind == "table":
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    table = pd.DataFrame({"size": X[:, 0], "colour": np.where(y, "red", "blue")})
    prepare = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
    model = make_pipeline(prepare, Ridge()).fit(table, X[:, 1])
    rows = table[:5].to_dict("records")
    want = model.predict(table[:5])
elif kind == "booster":
    import xgboost
    model = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(X, label=y), 5)
    want = model.predict(xgboost.DMatrix(rows))
elif kind == "classifier":
    import xgboost
    model = xgboost.XGBClassifier(n_estimators=5).fit(X, y)
    want = model.predict(np.asarray(rows))
if path.endswith(".joblib"):
    joblib.dump(model, path)
else:
    with open(path, "wb") as f:
        pickle.dump(model, f)
print(json.dumps({"rows": rows, "want": want.tolist()}))
"""

VERSIONS = {
    "sklearn-cpu.1-6": ["scikit-learn==1.6.*", "pandas"],
    "sklearn-cpu.1-2": ["scikit-learn==1.2.*", "numpy<1.24", "scipy<1.12", "pandas<2"],
    "xgboost-cpu.2-1": ["xgboost-cpu==2.1.*", "scikit-learn<1.7", "pandas"],
}


@pytest.fixture(scope="session")
def train(tmp_path_factory):
    """A function that trains in an image's versions: (path, rows, predictions)."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on this machine")
    made = {}

    def trained(image, kind, name):
        key = (image, kind, name)
        if key not in made:
            path = tmp_path_factory.mktemp("pickle") / name
            command = [uv, "run", "--quiet", "--no-project", "--python", "3.11"]
            for package in [*VERSIONS[image], "joblib"]:
                command += ["--with", package]
            command += ["python", "-c", TRAIN, kind, str(path)]
            run = subprocess.run(command, capture_output=True, text=True)
            if "Failed to fetch" in run.stderr or "No solution found" in run.stderr:
                pytest.skip("the packages of %s are not to be had" % image)
            assert run.returncode == 0, run.stderr
            made[key] = path, json.loads(run.stdout)
        return made[key]

    return trained


@pytest.fixture
def endpoint(mode):
    """An endpoint that is emptied and deleted."""
    created = aiplatform.Endpoint.create(display_name="pickles")
    yield created
    created.delete(force=True)


@pytest.fixture
def upload(bucket):
    """A function that uploads a file as the artifact of a prebuilt image's model."""
    made = []

    def uploaded(image, name, content):
        folder = uuid.uuid4().hex[:8]
        bucket.blob(f"{folder}/{name}").upload_from_string(content)
        made.append(
            aiplatform.Model.upload(
                display_name="pickled",
                artifact_uri=f"gs://{bucket.name}/{folder}",
                serving_container_image_uri=f"{PREBUILT}{image}:latest",
            )
        )
        return made[-1]

    return uploaded


@pytest.mark.parametrize(
    ("image", "kind", "name"),
    [
        ("sklearn-cpu.1-6", "forest", "model.joblib"),
        ("sklearn-cpu.1-6", "table", "model.pkl"),
        ("sklearn-cpu.1-2", "forest", "model.pkl"),
        ("xgboost-cpu.2-1", "booster", "model.pkl"),
        ("xgboost-cpu.2-1", "booster", "model.bst"),
        ("xgboost-cpu.2-1", "classifier", "model.joblib"),
    ],
)
def test_predictions_are_the_librarys(endpoint, upload, train, image, kind, name):
    path, data = train(image, kind, name)
    model = upload(image, name, path.read_bytes())
    endpoint.deploy(model, machine_type="n1-standard-2")
    assert endpoint.predict(instances=data["rows"]).predictions == data["want"]
    body = json.dumps({"instances": data["rows"]}).encode()
    raw = endpoint.raw_predict(body, {"Content-Type": "application/json"})
    assert raw.json() == {"predictions": data["want"]}
    refused = endpoint.raw_predict(body, {"Content-Type": "text/plain"})
    assert refused.status_code == 400
    assert "Unsupported content type" in refused.json()["detail"]


def test_damaged_pickle(endpoint, upload, train):
    path, _ = train("sklearn-cpu.1-6", "forest", "model.joblib")
    model = upload("sklearn-cpu.1-6", "model.joblib", path.read_bytes()[:3000])
    with pytest.raises(exceptions.GoogleAPICallError) as failure:
        endpoint.deploy(model, machine_type="n1-standard-2")
    assert "model.joblib with scikit-learn 1.6.1" in str(failure.value)
    assert "the whole file was uploaded" in str(failure.value)
    assert endpoint.list_models() == []


def test_pickle_of_another_version(endpoint, upload, train):
    path, _ = train("sklearn-cpu.1-2", "forest", "model.pkl")
    model = upload("sklearn-cpu.1-6", "model.pkl", path.read_bytes())
    with pytest.raises(exceptions.GoogleAPICallError) as failure:
        endpoint.deploy(model, machine_type="n1-standard-2")
    assert "it was saved by scikit-learn 1.2.2" in str(failure.value)
    assert "with the image sklearn-cpu.1-2" in str(failure.value)


def test_what_a_prebuilt_image_does_not_find(endpoint, upload):
    model = upload("sklearn-cpu.1-6", "weights.bin", b"x")
    with pytest.raises(exceptions.GoogleAPICallError, match=r"no model\.joblib or model\.pkl"):
        endpoint.deploy(model, machine_type="n1-standard-2")
