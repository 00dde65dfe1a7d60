"""Makes the fixture of one released schema: a small data directory and what is in it.

    TATEGU_BIN=the-released-binary python fixture.py --out internal/app/testdata/schema-N.tar.gz

Unmodified clients fill a server with a little of everything, then it is stopped
and what it must still know later is packed: state.db, objects/ and expect.json,
which says what a client saw. Keys, certificates, tokens and the audit trail stay
behind; the script fails when something that looks like one is left.
"""

import argparse
import base64
import contextlib
import hashlib
import io
import json
import os
import re
import sqlite3
import sys
import tarfile
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from server import Server, echo_config

PROJECT, LOCATION, BUCKET = "p", "us-central1", "old-bucket"
SECRET = re.compile(
    rb"PRIVATE KEY|BEGIN CERTIFICATE|refresh_token|\btgu_[a-z0-9]{16}_"
)


def text(size: int, seed: str) -> bytes:
    """Bytes that compress well and are the same each time."""
    line = f"{seed} the quick brown fox\n".encode()
    return (line * (size // len(line) + 1))[:size]


def fill_storage(server: Server, client: Any) -> dict[str, Any]:
    """Objects of every kind, and an upload that is not finished."""
    bucket = client.create_bucket(BUCKET, location=LOCATION)
    bucket.labels = {"team": "blue"}
    bucket.patch()
    rich = bucket.blob("folder/a b/ü.txt")
    rich.metadata = {"colour": "blue"}
    rich.cache_control = "no-store"
    rich.upload_from_string(b"hello", content_type="text/plain")
    for n in range(3):
        bucket.blob(f"part-{n}").upload_from_string(text(5000 + n, f"part {n}"))
    bucket.blob("composed").compose([bucket.blob(f"part-{n}") for n in range(3)])
    bucket.blob("empty").upload_from_string(b"")
    for version in ("first", "second"):
        bucket.blob("overwritten").upload_from_string(text(3000, version))
    bucket.blob("deleted").upload_from_string(b"gone")
    bucket.blob("deleted").delete()
    bucket.copy_blob(bucket.blob("part-1"), bucket, "copied")
    resumable = bucket.blob("resumable", chunk_size=256 << 10)
    resumable.upload_from_file(io.BytesIO(text(300_000, "resumable")))
    whole = text((256 << 10) + 777, "unfinished")
    session = bucket.blob("unfinished").create_resumable_upload_session(
        content_type="text/plain", size=len(whole)
    )
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(session).query)
    path = urllib.parse.urlsplit(session)
    import requests

    half = 256 << 10
    answer = requests.put(
        f"http://{server.address}{path.path}?{path.query}",
        data=whole[:half],
        headers={"Content-Range": f"bytes 0-{half - 1}/{len(whole)}"},
        timeout=60,
        proxies={"http": ""},
    )
    if answer.status_code != 308:
        raise RuntimeError(f"the first piece was answered {answer.status_code}")
    return {
        "id": query["upload_id"][0],
        "bucket": BUCKET,
        "name": "unfinished",
        "received": half,
        "size": len(whole),
        "seed": "unfinished",
    }


def fill_models(folder: Path, bucket: Any) -> dict[str, Any]:
    """A served LightGBM model with two versions, and its scores."""
    import lightgbm
    import numpy as np
    from google.cloud import aiplatform

    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 3)).round(3)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    params = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 7}
    booster = lightgbm.train(params, lightgbm.Dataset(x, y), 5)
    booster.save_model(folder / "model.txt")
    bucket.blob("model/model.txt").upload_from_filename(str(folder / "model.txt"))
    common = {
        "display_name": "old-model",
        "artifact_uri": f"gs://{BUCKET}/model",
        "serving_container_image_uri": "tategu/lightgbm",
    }
    model = aiplatform.Model.upload(**common, labels={"team": "blue"})
    aiplatform.Model.upload(
        **common,
        parent_model=model.resource_name,
        version_aliases=["prod"],
        version_description="two",
    )
    endpoint = aiplatform.Endpoint.create(display_name="old-endpoint")
    endpoint.deploy(model, machine_type="n1-standard-2")
    rows = x[:3].tolist()
    scores = endpoint.predict(instances=rows).predictions
    aiplatform.Endpoint.create(display_name="empty-endpoint")
    bucket.blob("in.jsonl").upload_from_string("".join(f"{r}\n" for r in rows))
    model.batch_predict(
        job_display_name="old-batch",
        gcs_source=f"gs://{BUCKET}/in.jsonl",
        gcs_destination_prefix=f"gs://{BUCKET}/out",
        instances_format="jsonl",
        predictions_format="jsonl",
        machine_type="n1-standard-2",
    )
    return {"name": endpoint.resource_name, "instances": rows, "predictions": scores}


def fill_jobs(folder: Path) -> None:
    """A pipeline that ended well, one that failed, and a custom job."""
    from google.cloud import aiplatform
    from kfp import compiler, dsl

    @dsl.container_component
    def say(word: str):
        return dsl.ContainerSpec(image="echo:1", args=[word])

    @dsl.container_component
    def fail():
        return dsl.ContainerSpec(image="fail:1")

    @dsl.pipeline(name="old-pipeline")
    def good(word: str = "hello"):
        say(word=word).set_display_name("second").after(say(word="first"))

    @dsl.pipeline(name="old-failure")
    def bad():
        fail()

    for name, function in (("old-run", good), ("old-failure", bad)):
        path = str(folder / f"{name}.yaml")
        compiler.Compiler().compile(function, path)
        job = aiplatform.PipelineJob(
            display_name=name,
            job_id=name,
            template_path=path,
            pipeline_root=f"gs://{BUCKET}/root",
            labels={"team": "blue"},
        )
        with contextlib.suppress(RuntimeError):
            job.run()
    pool = {
        "machine_spec": {"machine_type": "n1-standard-4"},
        "replica_count": 1,
        "container_spec": {"image_uri": "echo:1", "args": ["custom"]},
    }
    aiplatform.CustomJob(
        display_name="old-job", worker_pool_specs=[pool], staging_bucket=f"gs://{BUCKET}"
    ).run()
    artifact = aiplatform.Artifact.create(
        schema_title="system.Dataset", uri=f"gs://{BUCKET}/data", display_name="old-data"
    )
    aiplatform.Context.create(
        schema_title="system.Experiment", resource_id="old-experiment"
    )
    print("made", artifact.resource_name)


COLLECTIONS = (
    "models",
    "endpoints",
    "pipelineJobs",
    "customJobs",
    "batchPredictionJobs",
    "metadataStores/default/artifacts",
    "metadataStores/default/contexts",
    "metadataStores/default/executions",
)


def look(server: Server, client: Any) -> dict[str, Any]:
    """What a client sees: objects with their hashes, resources with their states."""
    objects = []
    for bucket in client.list_buckets():
        for blob in client.list_blobs(bucket):
            seen = {
                "bucket": bucket.name,
                "name": blob.name,
                "generation": str(blob.generation),
                "size": str(blob.size),
                "crc32c": blob.crc32c,
                "md5Hash": blob.md5_hash or "",
                "contentType": blob.content_type or "",
                "metadata": blob.metadata,
            }
            # A download overwrites some of these by the answer's headers.
            digest = hashlib.sha256(blob.download_as_bytes()).digest()
            objects.append(seen | {"sha256": base64.b64encode(digest).decode()})
    resources = {}
    parent = f"/v1/projects/{PROJECT}/locations/{LOCATION}"
    for collection in COLLECTIONS:
        page = json.loads(server.request("GET", f"{parent}/{collection}"))
        items = page.get(collection.rpartition("/")[2], [])
        if not items or page.get("nextPageToken"):
            raise RuntimeError(f"{collection}: {len(items)} on the first page")
        for item in items:
            resources[item["name"]] = {
                "displayName": item.get("displayName", ""),
                "state": item.get("state", ""),
            }
    name = next(n for n in resources if "/models/" in n)
    versions = json.loads(server.request("GET", f"/v1/{name}:listVersions"))
    return {
        "objects": objects,
        "resources": resources,
        "model": name,
        "modelVersions": len(versions["models"]),
    }


def strip(database: Path) -> None:
    """Drop what must not be published, and what a vacuum makes small."""
    db = sqlite3.connect(database)
    db.execute("DELETE FROM row WHERE kind = 'tokens'")
    db.execute("DELETE FROM event WHERE subject LIKE 'audit/%'")
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def pack(data: Path, expect: dict[str, Any], out: Path) -> None:
    """Write the archive, the same bytes for the same input."""
    files = {"expect.json": json.dumps(expect, indent=1, sort_keys=True).encode()}
    files["state.db"] = (data / "state.db").read_bytes()
    for path in sorted((data / "objects").glob("??/*")):
        files[str(path.relative_to(data))] = path.read_bytes()
    for name, content in files.items():
        if found := SECRET.search(content):
            raise RuntimeError(f"{name} holds what looks like a secret: {found[0]!r}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out, "w:gz", compresslevel=9) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o600
            tar.addfile(info, io.BytesIO(content))
    print(f"{out}: {out.stat().st_size} bytes, {len(files)} files")


def main() -> None:
    """Fill, look, stop, strip, pack."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out.absolute()
    with tempfile.TemporaryDirectory(prefix="tategu-fixture-") as name:
        folder = Path(name)
        fail = json.dumps([sys.executable, "-c", "raise SystemExit(3)"])
        config = echo_config("echo*") + f'  - match: "fail*"\n    command: {fail}\n'
        with Server(folder, config) as server:
            shell = server.env("--intercept")
            os.environ.clear()
            os.environ.update(shell)
            from google.cloud import aiplatform, storage

            aiplatform.init(project=PROJECT, location=LOCATION)
            client = storage.Client(project=PROJECT)
            upload = fill_storage(server, client)
            endpoint = fill_models(folder, client.bucket(BUCKET))
            fill_jobs(folder)
            server.command(
                "token", "create", "--email", "robot@example.com", "--project", PROJECT
            )
            expect = look(server, client) | {"upload": upload, "endpoint": endpoint}
        strip(server.data / "state.db")
        pack(server.data, expect, out)


if __name__ == "__main__":
    main()
