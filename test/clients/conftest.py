"""A server for the whole run, and the unmodified clients pointed at it in two ways.

intercept: the variables of `tategu env --intercept`, gRPC, application default
credentials: what a program written for the cloud sees.
http: plain HTTP and REST with anonymous credentials, storage by
STORAGE_EMULATOR_HOST. The proxy variables stay set there too, because the client
asks the resource manager over gRPC whatever its transport is.
"""

import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import ROOT, Server, echo_config

PROJECT = "p"
LOCATION = "us-central1"
CRASH = "print('no weights here', flush=True); raise SystemExit(3)"


SERVER = pytest.StashKey[Server]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start one tategu, whose images echo* echo, crash ends at once, and bad-canary fails.

    Then set the variables as after eval "$(tategu env --intercept)", before any
    client is imported: gRPC reads its roots once a process.
    """
    if session.config.option.collectonly:
        return
    crash = json.dumps([sys.executable, "-c", CRASH])
    config = echo_config("echo*") + f"  - match: crash\n    command: {crash}\n"
    canary = ROOT / "internal" / "serving" / "testdata" / "canary.py"
    bad = json.dumps([sys.executable, str(canary), "fails"])
    config += f"  - match: bad-canary\n    command: {bad}\n"
    config += "serving: {idle: 1s}\n"
    if dsn := os.environ.get("TATEGU_TEST_PGVECTOR_DSN"):  # datapoints of indexes are there then
        schema = f"clients_{uuid.uuid4().hex[:8]}"
        config += f"vectors: {{backend: pgvector, pgvector: {{dsn: {json.dumps(dsn)}, schema: {schema}}}}}\n"
    if torch := os.environ.get("TATEGU_TEST_TORCHSERVE"):
        config += f"torchserve: {{python: {torch}}}\n"
    folder = Path(tempfile.mkdtemp(prefix="tategu-clients-"))
    server = Server(folder, config)
    session.config.stash[SERVER] = server
    variables = server.env("--intercept")
    if torch:
        variables["TATEGU_TEST_TORCHSERVE"] = torch
    os.environ.clear()
    os.environ.update(variables)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End the server; its log is kept and named when a test failed."""
    server = session.config.stash.get(SERVER, None)
    if server is None:
        return
    server.stop()
    if exitstatus == 0:
        shutil.rmtree(server.data.parent, ignore_errors=True)
    else:
        print(f"\nthe server's data and log are kept in {server.data.parent}")


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Server:
    """The running server."""
    return pytestconfig.stash[SERVER]


@pytest.fixture(scope="session", params=["intercept", "http"])
def mode(request: pytest.FixtureRequest, server: Server) -> Iterator[str]:
    """Point the clients at the server."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    common = {"project": PROJECT, "location": LOCATION}
    staging = f"gs://staging-{request.param}"
    if request.param == "http":
        os.environ["STORAGE_EMULATOR_HOST"] = f"http://{server.address}"
        aiplatform.init(
            **common,
            staging_bucket=staging,
            api_endpoint=f"http://{server.address}",
            api_transport="rest",
            credentials=AnonymousCredentials(),
        )
    else:
        os.environ.pop("STORAGE_EMULATOR_HOST", None)
        aiplatform.init(**common, staging_bucket=staging)
    server.make_bucket(PROJECT, staging.removeprefix("gs://"))
    yield request.param
    os.environ.pop("STORAGE_EMULATOR_HOST", None)
    aiplatform.initializer.global_pool.shutdown(wait=True)
    aiplatform.initializer.global_config.__init__()


@pytest.fixture
def bucket(mode: str):
    """A new bucket and its client object."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    extra = {"credentials": AnonymousCredentials()} if mode == "http" else {}
    client = storage.Client(project=PROJECT, **extra)
    return client.create_bucket(f"b-{uuid.uuid4().hex}", location="us-central1")


@pytest.fixture(scope="session")
def lightgbm_model(tmp_path_factory: pytest.TempPathFactory):
    """A small LightGBM model: (folder with model.txt, rows, its own scores)."""
    import lightgbm
    import numpy as np

    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, 4))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    params = {"objective": "binary", "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(params, lightgbm.Dataset(x, y), 20)
    folder = tmp_path_factory.mktemp("model")
    booster.save_model(folder / "model.txt")
    rows = x[:5].tolist()
    return folder, rows, booster.predict(rows).tolist()


@pytest.fixture
def served_model(mode: str, bucket, lightgbm_model):
    """The LightGBM model, uploaded."""
    from google.cloud import aiplatform

    folder, _, _ = lightgbm_model
    blob = bucket.blob("model/model.txt")
    blob.upload_from_filename(str(folder / "model.txt"))
    return aiplatform.Model.upload(
        display_name=f"lgb-{uuid.uuid4().hex[:8]}",
        artifact_uri=f"gs://{bucket.name}/model",
        serving_container_image_uri="tategu/lightgbm",
    )


@pytest.fixture(scope="session")
def xgboost_model():
    """A small XGBoost model of three classes: (booster, rows, its own scores)."""
    xgboost = pytest.importorskip("xgboost")
    import numpy as np

    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, 4))
    y = np.digitize(x[:, 0] * x[:, 1], [-0.3, 0.3])
    params = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    booster = xgboost.train(params, xgboost.DMatrix(x, label=y), 10)
    rows = x[:5].tolist()
    return booster, rows, booster.predict(xgboost.DMatrix(rows)).tolist()


# The prebuilt image of the cloud loads model.bst, whatever format it has.
XGBOOST_IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-1:latest"


@pytest.fixture(params=["model.json", "model.ubj", "model.bst"])
def served_xgboost(mode: str, bucket, xgboost_model, request):
    """The XGBoost model, uploaded in one of its formats."""
    from google.cloud import aiplatform

    booster, _, _ = xgboost_model
    name = request.param
    text = booster.save_raw("json" if name.endswith(".json") else "ubj")
    bucket.blob(f"xgb/{name}").upload_from_string(bytes(text))
    return aiplatform.Model.upload(
        display_name=f"xgb-{uuid.uuid4().hex[:8]}",
        artifact_uri=f"gs://{bucket.name}/xgb",
        serving_container_image_uri=XGBOOST_IMAGE,
    )


@pytest.fixture
def echo_model(mode: str):
    """A model whose predictions are its instances."""
    from google.cloud import aiplatform

    return aiplatform.Model.upload(
        display_name=f"echo-{uuid.uuid4().hex[:8]}",
        serving_container_image_uri="echo:1",
        serving_container_predict_route="/predict",
        serving_container_health_route="/health",
    )
