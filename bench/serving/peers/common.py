"""The model of a benchmark, as a function from rows to a list of predictions."""

import os
from pathlib import Path

import numpy as np


def load(kind=None, folder=None):
    """Load a model of kind lgbm, onnx or sklearn; one thread, as there is one core."""
    kind = kind or os.environ["KIND"]
    folder = Path(folder or os.environ["MODEL_DIR"])
    if kind == "lgbm":
        import lightgbm

        booster = lightgbm.Booster(model_file=str(folder / "model.txt"))

        def trees(rows):
            table = np.asarray(rows, dtype=np.float64)
            return booster.predict(table, num_threads=1).tolist()

        return trees
    if kind == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

        def network(rows):
            table = np.asarray(rows, dtype=np.float32)
            return session.run(None, {"x": table})[0].tolist()

        return network
    if kind == "sklearn":
        import joblib

        model = joblib.load(folder / "model.joblib")
        return lambda rows: model.predict(np.asarray(rows, dtype=np.float64)).tolist()
    raise ValueError(f"unknown kind {kind}")
