"""Deploys the archive on an endpoint with the unmodified SDK, and asks it in each way.

    python deploy.py BUCKET

wants gs://BUCKET/digits/digits.mar and gs://BUCKET/digits/test.jsonl, and the variables of
`tategu env`. It prints what an endpoint predicts and explains, and how many drawings of
test.jsonl a batch prediction reads rightly; then it takes everything down again.
"""

import json
import sys

from google.cloud import aiplatform, storage


def main() -> None:
    """Upload, deploy, predict, explain, predict in a batch."""
    bucket = storage.Client().bucket(sys.argv[1])
    lines = bucket.blob("digits/test.jsonl").download_as_text().splitlines()
    rows = [json.loads(line) for line in lines]
    model = aiplatform.Model.upload(
        display_name="digits", artifact_uri=f"gs://{bucket.name}/digits", serving_container_image_uri="tategu/torchserve"
    )
    endpoint = model.deploy(machine_type="n1-standard-2")
    try:
        answer = endpoint.predict(instances=rows[:3])
        print("wanted   ", [row["digit"] for row in rows[:3]])
        print("predicted", [int(p["digit"]) for p in answer.predictions])
        explained = endpoint.explain(instances=rows[:1])
        features = type(explained.explanations[0]).to_dict(explained.explanations[0])["attributions"][0]["feature_attributions"]
        strongest = max((share, x, y) for y, line in enumerate(features["pixels"]) for x, share in enumerate(line))
        print(f"explained {features['digit']:.0f}: most by the pixel in row {strongest[2]}, column {strongest[1]}")
        job = model.batch_predict(
            job_display_name="digits", gcs_source=f"gs://{bucket.name}/digits/test.jsonl", gcs_destination_prefix=f"gs://{bucket.name}/out",
            instances_format="jsonl", predictions_format="jsonl", machine_type="n1-standard-2",
        )  # fmt: skip
        results = [json.loads(line) for blob in job.iter_outputs() if "prediction.results" in blob.name for line in blob.download_as_text().splitlines()]
        right = sum(r["prediction"]["digit"] == r["instance"]["digit"] for r in results)
        print(f"batch     {right} of {len(results)} are right")
        job.delete()
    finally:
        endpoint.delete(force=True)
        model.delete()


if __name__ == "__main__":
    main()
