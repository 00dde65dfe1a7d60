"""Drives the example: table, training, model versions, endpoint, predictions.

    python run.py [--bucket NAME] [--csv orders.csv]

The project and the credentials are the usual ones of Google's clients
(GOOGLE_CLOUD_PROJECT, application default credentials). The last line is
`demo: ok in N s ndcg=... popularity=...`; when something is not as it should be
it says what, and the exit code is 1.
"""

import argparse
import contextlib
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STARTED = time.monotonic()

import google.auth
import lightgbm
from google.api_core.exceptions import NotFound
from google.cloud import aiplatform, storage
from kfp import compiler

import data
import pipeline
import predict_pipeline

FIRST = {"num_leaves": 15, "learning_rate": 0.1, "rounds": 100}
SECOND = {"num_leaves": 7, "learning_rate": 0.1, "rounds": 150}
SHOWN = 5  # buyers whose recommendations are shown


class Failed(Exception):
    """A result that is not what it should be; the text is for the user."""


@dataclass
class Steps:
    """Prints each step with its time and remembers it for the table."""

    done: list[tuple[str, float, str]] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; what it appends to the list is shown beside it."""
        notes: list[str] = []
        began = time.monotonic()
        try:
            yield notes
        except BaseException:
            print(f"  {name:<28} {time.monotonic() - began:6.1f} s  FAILED", flush=True)
            raise
        self.add(name, time.monotonic() - began, "; ".join(notes))

    def add(self, name: str, seconds: float, note: str = "") -> None:
        """Print and remember a step."""
        self.done.append((name, seconds, note))
        print(f"  {name:<28} {seconds:6.1f} s  {note}", flush=True)


@dataclass
class Trained:
    """What a run of the training pipeline left."""

    report: dict[str, float]
    model_uri: str


class Demo:
    """The whole example, one method a step."""

    def __init__(
        self, project: str, location: str, bucket: str, features_image: str | None
    ) -> None:
        self.steps = Steps()
        self.bucket_name = bucket
        self.storage = storage.Client(project=project)
        aiplatform.init(
            project=project, location=location, staging_bucket=f"gs://{bucket}"
        )
        self.folder = Path(tempfile.mkdtemp(prefix="supplier-recommendation-"))
        self.task_times: list[tuple[str, str, float]] = []
        step = pipeline.features
        if features_image:
            step = pipeline.features_in(features_image)
        self.train_pipeline = pipeline.train_pipeline(step)
        self.predict_pipeline = predict_pipeline.predict_pipeline(step)

    # Storage.

    def upload(self, name: str, path: Path) -> str:
        """Upload a file and give its gs:// address."""
        bucket = self.storage.bucket(self.bucket_name)
        bucket.blob(name).upload_from_filename(str(path))
        return f"gs://{self.bucket_name}/{name}"

    def make_bucket(self) -> None:
        """Create the bucket unless it exists."""
        try:
            self.storage.get_bucket(self.bucket_name)
        except NotFound:
            self.storage.create_bucket(self.bucket_name, location="us-central1")

    def read(self, uri: str) -> str:
        """Read a text object."""
        blob = storage.Blob.from_uri(uri, client=self.storage)
        return blob.download_as_bytes().decode()

    def read_lines(self, prefix: str, name: str) -> list[dict[str, Any]]:
        """Read the JSON lines of all objects below a prefix whose name holds name."""
        bucket, _, folder = prefix.removeprefix("gs://").partition("/")
        lines: list[dict[str, Any]] = []
        for blob in self.storage.list_blobs(bucket, prefix=folder):
            if name in blob.name.rsplit("/", 1)[-1]:
                text = blob.download_as_bytes().decode()
                lines += [json.loads(line) for line in text.splitlines()]
        return lines

    # Pipelines.

    def compile(self) -> None:
        """Compile both pipelines to IR."""
        for function in (self.train_pipeline, self.predict_pipeline):
            path = self.folder / f"{function.name}.yaml"
            compiler.Compiler().compile(function, str(path))

    def pipeline_job(
        self, function: Any, parameters: dict[str, Any], *, caching: bool = True
    ) -> aiplatform.PipelineJob:
        """Make a job of a compiled pipeline, without running it."""
        return aiplatform.PipelineJob(
            display_name=function.name,
            template_path=str(self.folder / f"{function.name}.yaml"),
            pipeline_root=f"gs://{self.bucket_name}/runs",
            parameter_values=parameters,
            enable_caching=caching,
        )

    def run_pipeline(
        self, function: Any, label: str, parameters: dict[str, Any]
    ) -> aiplatform.PipelineJob:
        """Run a compiled pipeline to its end."""
        job = self.pipeline_job(function, parameters)
        job.run()
        for task in job.task_details:
            if task.start_time and task.end_time:
                took = (task.end_time - task.start_time).total_seconds()
                self.task_times.append((label, task.task_name, took))
        return job

    def train(
        self, label: str, orders_uri: str, positive: float, parameters: dict[str, Any]
    ) -> tuple[Trained, aiplatform.PipelineJob]:
        """Run the training pipeline; a model that is not better is a failure."""
        values = {"orders_uri": orders_uri, "positive": positive, **parameters}
        job = self.run_pipeline(self.train_pipeline, label, values)
        report = json.loads(self.read(output_uri(job, "evaluate", "report")))
        lower, upper = report["difference_lower"], report["difference_upper"]
        if lower <= 0:
            raise Failed(
                "the model is not better than popularity, so the pipeline did not "
                f"publish it: 95 % interval of the NDCG@10 difference "
                f"{lower:+.4f} to {upper:+.4f}"
            )
        return Trained(report, output_uri(job, "publish", "published")), job

    def schedule(self, cron: str, orders_uri: str, positive: float) -> str:
        """Train by the clock; a schedule of an earlier run gets the new times."""
        name = "supplier-recommendation"
        known = aiplatform.PipelineJobSchedule.list(
            filter=f'display_name="{name}" AND NOT state="COMPLETED"'
        )
        if known:
            schedule = known[0]
            schedule.update(cron=cron)
        else:
            values = {"orders_uri": orders_uri, "positive": positive, **FIRST}
            # The table may be another one under the same address by then.
            job = self.pipeline_job(self.train_pipeline, values, caching=False)
            schedule = job.create_schedule(
                cron=cron, display_name=name, max_concurrent_active_run_count=1
            )
        schedule = aiplatform.PipelineJobSchedule.get(schedule.resource_name)
        return f"next run {schedule.gca_resource.next_run_time:%Y-%m-%d %H:%M} UTC"

    # Checks against LightGBM itself.

    def own_scores(self, model_uri: str, rows: list[list[float]]) -> list[float]:
        """Score rows with the real library."""
        booster = lightgbm.Booster(model_str=self.read(f"{model_uri}/model.txt"))
        return [float(score) for score in booster.predict(rows)]


def output_uri(job: aiplatform.PipelineJob, task: str, output: str) -> str:
    """The address of what a task of a run put out."""
    for detail in job.task_details:
        if detail.task_name == task and output in detail.outputs:
            return detail.outputs[output].artifacts[0].uri
    raise Failed(f"run {job.name} has no output {output} of a task {task}")


def compare(what: str, got: list[float], want: list[float]) -> str:
    """Fail unless the served numbers are those of LightGBM."""
    if len(got) != len(want):
        raise Failed(f"{what}: {len(got)} predictions for {len(want)} rows")
    worst = max(abs(float(a) - b) for a, b in zip(got, want))
    if not math.isfinite(worst) or worst > 1e-12:
        raise Failed(f"{what}: differs from LightGBM by {worst:g}")
    return f"{len(got)} rows equal to LightGBM's (largest difference {worst:g})"


def cached_tasks(job: aiplatform.PipelineJob) -> tuple[list[str], list[str]]:
    """Split the container tasks of a run into cached ones and others."""
    names = {"split", "features", "train", "evaluate", "publish"}
    hits, misses = [], []
    for task in job.task_details:
        if task.task_name in names:
            hit = task.state.name == "SKIPPED" or task.execution.state.name == "CACHED"
            (hits if hit else misses).append(task.task_name)
    return hits, misses


def upload_model(trained: Trained, image: str, **version: Any) -> aiplatform.Model:
    """Register what a run published as a version of the model."""
    return aiplatform.Model.upload(
        display_name="supplier-recommendation",
        artifact_uri=trained.model_uri,
        serving_container_image_uri=image,
        labels={"trees": "lightgbm"},
        version_description=f"NDCG@10 {trained.report['ndcg_at_10']:.4f}",
        **version,
    )


def train_versions(
    demo: Demo, orders_uri: str, positive: float, image: str
) -> tuple[Trained, aiplatform.Model]:
    """Train twice, register both, and give the better one."""
    steps = demo.steps
    with steps.step("train pipeline") as notes:
        first, _ = demo.train("train", orders_uri, positive, FIRST)
        notes.append(f"NDCG@10 {first.report['ndcg_at_10']:.4f}")
    with steps.step("Model.upload (version 1)") as notes:
        model = upload_model(first, image)
        notes.append(model.versioned_resource_name)
    with steps.step("retrain, other parameters") as notes:
        second, job = demo.train("retrain", orders_uri, positive, SECOND)
        hits, _ = cached_tasks(job)
        notes.append(f"NDCG@10 {second.report['ndcg_at_10']:.4f}")
        notes.append(f"from the cache: {', '.join(sorted(hits)) or 'nothing'}")
    with steps.step("Model.upload (version 2)") as notes:
        second_model = upload_model(
            second,
            image,
            parent_model=model.resource_name,
            is_default_version=False,
            version_aliases=["challenger"],
        )
        notes.append(f"{second_model.version_id} {second_model.version_aliases}")
        if second_model.version_id != "2":
            raise Failed(f"the second version is {second_model.version_id}, not 2")
    better = second.report["ndcg_at_10"] > first.report["ndcg_at_10"]
    alias = "challenger" if better else "default"
    chosen = aiplatform.Model(model.resource_name, version=alias)
    return (second if better else first), chosen


def recommend(
    demo: Demo, orders_uri: str, positive: float, trained: Trained, buyers: list[str]
) -> tuple[list[dict[str, Any]], str]:
    """Run the predict pipeline; give its lines and the address of its rows."""
    with demo.steps.step("predict pipeline") as notes:
        path = demo.folder / "buyers.jsonl"
        path.write_text("".join(json.dumps({"buyer": b}) + "\n" for b in buyers))
        name = f"buyers/{data.digest(path)}.jsonl"
        parameters = {
            "orders_uri": orders_uri,
            "model_uri": trained.model_uri,
            "buyers_uri": demo.upload(name, path),
            "positive": positive,
        }
        job = demo.run_pipeline(demo.predict_pipeline, "predict", parameters)
        text = demo.read(output_uri(job, "score", "recommendations"))
        lines = [json.loads(line) for line in text.splitlines()]
        if [line["instance"]["buyer"] for line in lines] != buyers:
            raise Failed("the predict pipeline did not answer each buyer, in order")
        notes.append(f"{len(lines)} buyers")
        return lines, output_uri(job, "score", "rows")


def serve(
    demo: Demo, model: aiplatform.Model, rows: list[list[float]], want: list[float]
) -> None:
    """Deploy, then compare online predictions with LightGBM."""
    steps = demo.steps
    with steps.step("Endpoint.create"):
        endpoint = aiplatform.Endpoint.create(display_name="supplier-recommendation")
    with steps.step("deploy") as notes:
        endpoint.deploy(model, machine_type="n1-standard-2", traffic_percentage=100)
        notes.append(f"version {model.version_id}")
    with steps.step("predict") as notes:
        answer = endpoint.predict(instances=rows)
        notes.append(compare("predict", answer.predictions, want))
    with steps.step("raw_predict") as notes:
        body = json.dumps({"instances": rows}).encode()
        raw = endpoint.raw_predict(body, {"Content-Type": "application/json"})
        if raw.status_code != 200:
            raise Failed(f"raw_predict answered {raw.status_code}: {raw.text[:300]}")
        notes.append(compare("raw_predict", raw.json()["predictions"], want))


def batch(
    demo: Demo,
    model: aiplatform.Model,
    rows_uri: str,
    rows: list[list[float]],
    want: list[float],
) -> None:
    """Run a batch prediction job; each line has its instance."""
    with demo.steps.step("batch_predict") as notes:
        job = model.batch_predict(
            job_display_name="supplier-recommendation",
            gcs_source=rows_uri,
            gcs_destination_prefix=f"gs://{demo.bucket_name}/batch",
            instances_format="jsonl",
            predictions_format="jsonl",
            machine_type="n1-standard-2",
        )
        folder = job.output_info.gcs_output_directory
        lines = demo.read_lines(folder, "prediction.results")
        answers = {tuple(line["instance"]): line["prediction"] for line in lines}
        if len(lines) != len(rows):
            raise Failed(f"batch_predict: {len(lines)} lines for {len(rows)} rows")
        missing = [row for row in rows if tuple(row) not in answers]
        if missing:
            raise Failed(f"batch_predict: no line with the instance {missing[0]}")
        got = [answers[tuple(row)] for row in rows]
        notes.append(compare("batch_predict", got, want))


def run_again(demo: Demo, orders_uri: str, positive: float) -> None:
    """Run the first training pipeline again: everything comes from the cache."""
    with demo.steps.step("the same pipeline again") as notes:
        _, job = demo.train("again", orders_uri, positive, FIRST)
        hits, misses = cached_tasks(job)
        if misses or not hits:
            raise Failed(f"not from the cache: {', '.join(misses) or 'any task'}")
        notes.append(f"{len(hits)} of {len(hits)} tasks from the cache")


def show(demo: Demo, lines: list[dict[str, Any]], report: dict[str, float]) -> None:
    """Print what the team wanted to know."""
    print("\nRecommended suppliers")
    for line in lines[:SHOWN]:
        titles = [supplier["title"] for supplier in line["prediction"][:5]]
        print(f"  buyer {line['instance']['buyer']:>5}: {', '.join(titles)}")
    print(f"\nRanking of all unseen suppliers, {report['buyers']} buyers")
    print("                NDCG@10  hit rate@10")
    for name, key in (("LightGBM", ""), ("popularity", "popularity_")):
        ndcg, hits = report[f"{key}ndcg_at_10"], report[f"{key}hit_rate_at_10"]
        print(f"  {name:<12} {ndcg:8.4f} {hits:12.4f}")
    lower, upper = report["difference_lower"], report["difference_upper"]
    print(f"  NDCG@10 difference, 95 % interval: {lower:+.4f} to {upper:+.4f}")
    print("\nWhat each step cost")
    total = time.monotonic() - STARTED
    for name, seconds, _ in demo.steps.done:
        print(f"  {name:<28} {seconds:6.1f} s")
        label = PIPELINE_STEPS.get(name)
        for of, task, took in demo.task_times:
            if of == label:
                print(f"      {task:<24} {took:6.1f} s")
    print(f"  {'total':<28} {total:6.1f} s\n")


PIPELINE_STEPS = {
    "train pipeline": "train",
    "retrain, other parameters": "retrain",
    "predict pipeline": "predict",
    "the same pipeline again": "again",
}


def run(options: argparse.Namespace) -> None:
    """Do everything, in order."""
    _, project = google.auth.default()
    if not project:
        raise Failed("no project: set GOOGLE_CLOUD_PROJECT")
    bucket = options.bucket or f"{project}-supplier-recommendation"
    demo = Demo(project, options.location, bucket, options.features_image)
    steps = demo.steps
    steps.add("import the clients", time.monotonic() - STARTED)
    with steps.step("get the order history") as notes:
        csv = data.orders_csv(options.csv, options.cache)
        notes.append(str(csv))
    with steps.step("upload the table"):
        demo.make_bucket()
        orders_uri = demo.upload(f"orders/{data.digest(csv)}.csv", csv)
    with steps.step("compile the pipelines"):
        demo.compile()
    trained, model = train_versions(
        demo, orders_uri, options.positive, options.serving_image
    )
    buyers = data.some_buyers(csv, options.buyers)
    lines, rows_uri = recommend(demo, orders_uri, options.positive, trained, buyers)
    rows = [json.loads(line) for line in demo.read(rows_uri).splitlines()]
    want = demo.own_scores(trained.model_uri, rows)
    serve(demo, model, rows, want)
    batch(demo, model, rows_uri, rows, want)
    run_again(demo, orders_uri, options.positive)
    if options.schedule:
        with steps.step("create_schedule") as notes:
            notes.append(demo.schedule(options.schedule, orders_uri, options.positive))
    show(demo, lines, trained.report)
    ndcg = trained.report["ndcg_at_10"]
    popularity = trained.report["popularity_ndcg_at_10"]
    seconds = time.monotonic() - STARTED
    print(f"demo: ok in {seconds:.0f} s ndcg={ndcg:.4f} popularity={popularity:.4f}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bucket",
        help="made if it does not exist (default: PROJECT-supplier-recommendation)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=data.cache_folder(),
        help="where the default input is kept between runs",
    )
    parser.add_argument("--location", default="us-central1")
    parser.add_argument("--csv", help="an order history of your own; see data.py")
    parser.add_argument(
        "--positive", type=float, default=4.0, help="an outcome from here on is good"
    )
    parser.add_argument(
        "--buyers", type=int, default=SHOWN, help="how many buyers to score"
    )
    parser.add_argument(
        "--schedule",
        metavar="CRON",
        help="train by the clock from now on, such as 'TZ=Europe/Berlin 30 2 * * *'",
    )
    parser.add_argument("--serving-image", default="tategu/lightgbm")
    parser.add_argument(
        "--features-image",
        help="do the features step in this image of ../rust-features, not in Python",
    )
    return parser.parse_args()


def main() -> int:
    """Run, and turn every failure into a line that says why."""
    options = parse()
    # The clients tell each poll at INFO; the steps below are enough.
    logging.disable(logging.INFO)
    try:
        run(options)
    except Failed as failure:
        print(f"demo: failed: {failure}", file=sys.stderr)
        return 1
    except Exception as error:
        logging.getLogger(__name__).exception("the step above did not work")
        print(f"demo: failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
