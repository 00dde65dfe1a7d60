"""The model for the stock server of custom prediction routines."""

import os

from common import load
from google.cloud.aiplatform.prediction.predictor import Predictor as Base


class Predictor(Base):
    """Rows in, predictions out."""

    def load(self, artifacts_uri):
        """Load the model from where the server was told that it is."""
        self.rows = load(folder=artifacts_uri or os.environ["MODEL_DIR"])

    def predict(self, instances):
        """Answer one prediction for each row."""
        return {"predictions": self.rows(instances["instances"])}
