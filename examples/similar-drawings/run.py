"""Drives the example: drawings, training, index, endpoints, and a page of what is found.

    python run.py [--page similar.html] [--families tabler bootstrap] [--steps 600]

The project and the credentials are the usual ones of Google's clients
(GOOGLE_CLOUD_PROJECT, application default credentials); the server is the one that
`tategu` on the PATH finds. The last line is `similar-drawings: ok drawings=... hit10=...
raw_pixels_hit10=... seconds=...`; when something is not as it should be it says what,
and the exit code is 1. Run again, it brings new versions under the same names.
"""

import argparse
import contextlib
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STARTED = time.monotonic()

import google.auth
from google.api_core.exceptions import NotFound
from google.cloud import aiplatform, storage
from kfp import compiler, components

import drawings
import evaluate
import pipeline
import similar

IMAGE = "tategu/onnx"
TATEGU = "put the folder with it on the PATH"
NAMED = f'display_name="{similar.NAME}"'


class Failed(Exception):
    """A result that is not what it should be; the text is for the user."""


@contextlib.contextmanager
def step(name: str) -> Iterator[list[str]]:
    """Print how long a step took; what it appends to the list is shown beside it."""
    notes: list[str] = []
    began = time.monotonic()
    try:
        yield notes
    except BaseException:
        print(f"  {name:<26} {time.monotonic() - began:6.1f} s  FAILED", flush=True)
        raise
    took = time.monotonic() - began
    print(f"  {name:<26} {took:6.1f} s  {'; '.join(notes)}", flush=True)


class Example:
    """The whole example, one method a step."""

    def __init__(self, project: str, location: str, bucket: str) -> None:
        self.storage = storage.Client(project=project)
        aiplatform.init(
            project=project, location=location, staging_bucket=f"gs://{bucket}"
        )
        try:
            self.bucket = self.storage.get_bucket(bucket)
        except NotFound:
            self.bucket = self.storage.create_bucket(bucket, location="us-central1")

    def uri(self, name: str) -> str:
        """The address of something in the bucket."""
        return f"gs://{self.bucket.name}/{name}"

    def read_lines(self, uri: str, name: str = "") -> list[dict[str, Any]]:
        """The JSON lines of all objects below an address whose name begins so."""
        found: list[dict[str, Any]] = []
        prefix = uri.removeprefix(self.uri(""))
        for blob in self.bucket.list_blobs(prefix=prefix):
            if blob.name.rsplit("/", 1)[-1].startswith(name):
                found += map(json.loads, blob.download_as_bytes().splitlines())
        return found

    def upload(self, packages: list[Path]) -> str:
        """Put packages into a folder that is called after what they hold."""
        digest = hashlib.sha256(b"".join(p.read_bytes() for p in packages))
        folder = f"packages/{digest.hexdigest()[:16]}"
        for path in packages:
            self.bucket.blob(f"{folder}/{path.name}").upload_from_filename(str(path))
        return self.uri(folder)

    def run_pipeline(
        self, function: Any, values: dict[str, Any]
    ) -> aiplatform.PipelineJob:
        """Run a pipeline to its end, and say when each of its tasks has ended."""
        with tempfile.NamedTemporaryFile(suffix=".yaml") as compiled:
            compiler.Compiler().compile(function, compiled.name)
            job = aiplatform.PipelineJob(
                display_name=function.name,
                template_path=compiled.name,
                pipeline_root=self.uri("runs"),
                parameter_values=values,
                enable_caching=True,
            )
        job.submit()
        told: set[str] = set()
        followed: list[threading.Thread] = []
        while True:
            state = job.state.name
            for task in job.task_details:
                name = task.task_name
                if name == "train" and task.state.name == "RUNNING" and not followed:
                    followed = [threading.Thread(target=follow, args=(job.name, name))]
                    followed[0].start()
                whole = name == job.name or "importer" in name
                if task.end_time and not whole and name not in told:
                    told.add(name)
                    for thread in followed:
                        thread.join()
                    print(f"      {name:<22} {took(task)}", flush=True)
            if state not in ("PIPELINE_STATE_PENDING", "PIPELINE_STATE_RUNNING"):
                break
            time.sleep(0.5)
        if state != "PIPELINE_STATE_SUCCEEDED":
            raise Failed(f"{job.name} is {state}: {job.gca_resource.error.message}")
        return job

    def batch_predict(self, model: aiplatform.Model, bitmaps: str) -> str:
        """Embed all drawings; give the folder of the results.

        `Model.batch_predict` has no argument for keys: it is a field for the client
        below it.
        """
        client = aiplatform.initializer.global_config.create_client(
            client_class=aiplatform.utils.JobClientWithOverride
        )
        made = client.create_batch_prediction_job(
            parent=model.resource_name.partition("/models/")[0],
            batch_prediction_job={
                "display_name": similar.NAME,
                "model": model.versioned_resource_name,
                "input_config": {
                    "instances_format": "jsonl",
                    "gcs_source": {"uris": [bitmaps]},
                },
                "output_config": {
                    "predictions_format": "jsonl",
                    "gcs_destination": {"output_uri_prefix": self.uri("embedded")},
                },
                "instance_config": {"key_field": "id", "included_fields": ["pixels"]},
                "dedicated_resources": {
                    "machine_spec": {"machine_type": "n1-standard-2"},
                    "starting_replica_count": 1,
                    "max_replica_count": 1,
                },
            },
        )
        job = aiplatform.BatchPredictionJob(made.name)
        job.wait_for_completion()
        if job.completion_stats.failed_count:
            raise Failed(f"{job.completion_stats.failed_count} drawings have no vector")
        return job.output_info.gcs_output_directory

    def index(self, points: str, dimensions: int) -> str:
        """Build the index and deploy it, or bring its next generation in."""
        known = aiplatform.MatchingEngineIndexEndpoint.list(filter=NAMED)
        if known and known[0].deployed_indexes:
            index = aiplatform.MatchingEngineIndex(known[0].deployed_indexes[0].index)
            index.update_embeddings(points, is_complete_overwrite=True)
            return "a new generation, while the old one answered"
        index = aiplatform.MatchingEngineIndex.create_tree_ah_index(
            display_name=similar.NAME,
            contents_delta_uri=points,
            dimensions=dimensions,
            approximate_neighbors_count=100,
            distance_measure_type="COSINE_DISTANCE",
        )
        ends = aiplatform.MatchingEngineIndexEndpoint.create(
            display_name=similar.NAME, public_endpoint_enabled=True
        )
        ends.deploy_index(index, deployed_index_id=similar.DEPLOYED)
        return f"{index.gca_resource.index_stats.vectors_count} datapoints"

    def deploy(self, model: aiplatform.Model) -> str:
        """Let the endpoint answer with this version, and with no other."""
        known = aiplatform.Endpoint.list(filter=NAMED)
        endpoint = (
            known[0] if known else aiplatform.Endpoint.create(display_name=similar.NAME)
        )
        before = [deployed.id for deployed in endpoint.list_models()]
        endpoint.deploy(model, machine_type="n1-standard-2", traffic_percentage=100)
        for old in before:
            endpoint.undeploy(old)
        return f"version {model.version_id}, without Python"


def render_step() -> Any:
    """The component of the program that renders, made of the program as it is."""
    tategu = drawings.tool("tategu", TATEGU)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(shutil.copy(drawings.renderer(), folder))
        command = [tategu, "task", "from", str(program), "--folder", folder, "--yaml"]
        command += [
            "--arg",
            "drawings:in",
            "--arg",
            "bitmaps:out",
            "--arg",
            "size:int=32",
        ]
        return components.load_component_from_text(drawings.run(command))


def follow(run: str, task: str) -> None:
    """Show the progress that a task prints, until it ends."""
    command = [drawings.tool("tategu", TATEGU), "logs", "--follow", f"{run}/{task}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as logs:
        for line in logs.stdout or ():
            if line.startswith("step"):
                print(f"          {line}", end="", flush=True)


def took(task: Any) -> str:
    """How long a task took; one from the cache was never started."""
    if not task.start_time:
        return "from the cache"
    return f"{(task.end_time - task.start_time).total_seconds():6.1f} s"


def output_uri(job: aiplatform.PipelineJob, task: str, output: str) -> str:
    """The address of what a task of a run put out."""
    for detail in job.task_details:
        if detail.task_name == task and output in detail.outputs:
            return detail.outputs[output].artifacts[0].uri
    raise Failed(f"run {job.name} has no output {output} of a task {task}")


def upload_model(uri: str) -> aiplatform.Model:
    """Register the network, as the next version where there is one."""
    known = aiplatform.Model.list(filter=NAMED)
    return aiplatform.Model.upload(
        display_name=similar.NAME,
        parent_model=known[0].resource_name if known else None,
        artifact_uri=uri,
        serving_container_image_uri=IMAGE,
    )


def run(options: argparse.Namespace) -> str:
    """Do everything, in order; give the last line."""
    _, project = google.auth.default()
    if not project:
        raise Failed("no project: set GOOGLE_CLOUD_PROJECT")
    example = Example(
        project, options.location, options.bucket or f"{project}-{similar.NAME}"
    )
    with step("npm: fetch the drawings") as notes:
        packages = [drawings.fetch(f, options.cache) for f in sorted(options.families)]
        notes.append(", ".join(drawings.PACKAGES[f] for f in sorted(options.families)))
    with step("cargo: build the renderer"):
        drawings.renderer()
    with step("upload the packages"):
        packages_uri = example.upload(packages)
    with step("tategu task from"):
        train = pipeline.train_pipeline(render_step())
    with step("pipeline: render, train") as notes:
        values = {
            "packages_uri": packages_uri,
            "steps": options.steps,
            "seed": options.seed,
        }
        job = example.run_pipeline(train, values)
        bitmaps_uri = output_uri(job, "render-drawings", "bitmaps")
    with step("Model.upload") as notes:
        model = upload_model(output_uri(job, "train", "model"))
        notes.append(f"version {model.version_id}")
    with step("batch prediction"):
        vectors_uri = example.batch_predict(model, bitmaps_uri)
    with step("pipeline: datapoints"):
        values = {"bitmaps_uri": bitmaps_uri, "predictions_uri": vectors_uri}
        points_uri = output_uri(
            example.run_pipeline(pipeline.index_pipeline, values),
            "datapoints",
            "points",
        )
    vectors = example.read_lines(vectors_uri, "prediction.results")
    with step("index: build and deploy") as notes:
        notes.append(example.index(points_uri, len(vectors[0]["prediction"])))
    with step("endpoint: deploy the model") as notes:
        notes.append(example.deploy(model))
    search = similar.Search()
    known = evaluate.Known(
        example.read_lines(bitmaps_uri),
        example.read_lines(output_uri(job, "split", "labels")),
        {v["key"]: v["prediction"] for v in vectors},
    )
    with step("search: held-out names") as notes:
        result = evaluate.compare(search.index, known)
        notes.append(
            f"{result.queries} queries, recall of the index {result.recall:.3f}"
        )
    if result.hit <= result.raw:
        raise Failed(
            f"the network finds no more than raw pixels do: hit rate@10 {result.hit:.3f} "
            f"and {result.raw:.3f}; train it longer with --steps"
        )
    with step("write the page") as notes:
        report = evaluate.Report(search, known, result)
        options.page.write_text(report.html(options.drawing))
        notes.append(str(options.page))
    print(f"\nHit rate@10 over {result.queries} drawings whose names were held out")
    print(f"  the network, by the index   {result.hit:.3f}")
    print(f"  raw pixels, all compared    {result.raw:.3f}\n")
    seconds = time.monotonic() - STARTED
    return (
        f"similar-drawings: ok drawings={len(known.ids)} hit10={result.hit:.3f} "
        f"raw_pixels_hit10={result.raw:.3f} seconds={seconds:.0f}"
    )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bucket", help="made if it does not exist (default: PROJECT-similar-drawings)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=drawings.cache_folder(),
        help="where packages are kept between runs",
    )
    parser.add_argument(
        "--families",
        nargs="+",
        choices=sorted(drawings.PACKAGES),
        default=sorted(drawings.PACKAGES),
        help="two at least (default: all)",
    )
    parser.add_argument("--location", default="us-central1")
    parser.add_argument("--steps", type=int, default=600, help="steps of training")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--drawing",
        type=Path,
        default=drawings.HERE / "sketch.svg",
        help="an SVG file of yours to find similar ones to",
    )
    parser.add_argument(
        "--page", type=Path, default=Path("similar.html"), help="the page to write"
    )
    options = parser.parse_args()
    if len(set(options.families)) < 2:
        parser.error("--families: one family has no other to learn from; name two")
    return options


def main() -> int:
    """Run, and turn every failure into a line that says why."""
    options = parse()
    # The clients tell each poll at INFO; the steps below are enough.
    logging.disable(logging.INFO)
    try:
        print(run(options))
    except (Failed, drawings.Missing) as failure:
        print(f"similar-drawings: failed: {failure}", file=sys.stderr)
        return 1
    except Exception as error:
        logging.getLogger(__name__).exception("the step above did not work")
        print(
            f"similar-drawings: failed: {type(error).__name__}: {error}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
