"""The predict pipeline: score all suppliers for the buyers asked for."""

from typing import Any

from kfp import dsl

from pipeline import BASE_IMAGE, PACKAGES, features


@dsl.component(base_image=BASE_IMAGE, packages_to_install=PACKAGES)
def score(
    candidates: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    buyers: dsl.Input[dsl.Dataset],
    top: int,
    recommendations: dsl.Output[dsl.Dataset],
    rows: dsl.Output[dsl.Dataset],
) -> None:
    """JSONL in (one buyer a line), JSONL out (each line with its instance).

    rows holds the model's input for each recommended supplier, one JSON list a
    line in the same order: what an endpoint or a batch prediction job takes.
    """
    import json
    import os

    import lightgbm as lgb
    import numpy as np

    booster = lgb.Booster(model_file=os.path.join(model.path, "model.txt"))
    data = np.load(candidates.path)
    pairs, owns, seen = data["pairs"], data["owns"], data["seen"]
    suppliers, titles = data["suppliers"], data["titles"]
    row_of = {str(buyer): row for row, buyer in enumerate(data["buyers"])}
    with open(buyers.path) as f:
        instances = [json.loads(line) for line in f if line.strip()]
    lines = 0
    with open(recommendations.path, "w") as out, open(rows.path, "w") as out_rows:
        for instance in instances:
            buyer = row_of.get(str(instance["buyer"]))
            if buyer is None:
                raise ValueError(f"buyer {instance['buyer']} has no orders")
            allowed = np.flatnonzero(~seen[buyer])
            own = np.tile(owns[buyer], (len(allowed), 1))
            x = np.hstack([pairs[buyer][allowed], own]).astype(np.float32)
            scores = booster.predict(x)
            best = np.argsort(-scores, kind="stable")[:top]
            prediction = [
                {
                    "supplier": str(suppliers[allowed[k]]),
                    "title": str(titles[allowed[k]]),
                    "score": float(scores[k]),
                }
                for k in best
            ]
            line = {"instance": instance, "prediction": prediction}
            out.write(json.dumps(line) + "\n")
            out_rows.writelines(
                json.dumps([float(v) for v in x[k]]) + "\n" for k in best
            )
            lines += len(best)
    recommendations.metadata["buyers"] = len(instances)
    print(f"{len(instances)} buyers, {lines} recommendations")


def predict_pipeline(describe: Any = features) -> Any:
    """The pipeline with one of the features steps."""

    @dsl.pipeline(name="predict-supplier-recommendation")
    def predict_pipeline(
        orders_uri: str,
        model_uri: str,
        buyers_uri: str,
        positive: float = 4.0,
        top: int = 10,
    ) -> None:
        """From an order history, a model and a list of buyers to recommendations."""
        orders = dsl.importer(
            artifact_uri=orders_uri, artifact_class=dsl.Dataset, reimport=False
        )
        model = dsl.importer(
            artifact_uri=model_uri, artifact_class=dsl.Model, reimport=False
        )
        buyers = dsl.importer(
            artifact_uri=buyers_uri, artifact_class=dsl.Dataset, reimport=False
        )
        described = describe(orders=orders.output, purpose="predict", positive=positive)
        score(
            candidates=described.outputs["candidates"],
            model=model.output,
            buyers=buyers.output,
            top=top,
        )

    return predict_pipeline
