"""The model in MLServer, by the Open Inference Protocol."""

import numpy as np
from common import load
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Model(MLModel):
    """A model of any kind."""

    async def load(self):
        """Load it."""
        self.rows = load()
        return True

    async def predict(self, payload):
        """Answer one prediction for each row."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        out = np.asarray(self.rows(rows))
        outputs = [NumpyCodec.encode_output("predictions", out)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
