"""The model as a BentoML service."""

import bentoml
from common import load


@bentoml.service(workers=1)
class Model:
    """One worker: it has one core."""

    def __init__(self):
        self.rows = load()

    @bentoml.api
    def predict(self, instances: list[list[float]]) -> dict:
        """Answer one prediction for each row."""
        return {"predictions": self.rows(instances)}
