"""The model of a benchmark, as a function from rows to a list of predictions."""

import os
from pathlib import Path

import numpy as np


def load(kind=None, folder=None):
    """Load the model of a kind: lgbm, onnx or sklearn. One thread, as all servers have one core."""
    kind = kind or os.environ["KIND"]
    folder = Path(folder or os.environ["MODEL_DIR"])
    if kind == "lgbm":
        import lightgbm

        booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
        return lambda rows: booster.predict(np.asarray(rows, dtype=np.float64), num_threads=1).tolist()
    if kind == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        return lambda rows: session.run(None, {"x": np.asarray(rows, dtype=np.float32)})[0].tolist()
    if kind == "sklearn":
        import joblib

        model = joblib.load(folder / "model.joblib")
        return lambda rows: model.predict(np.asarray(rows, dtype=np.float64)).tolist()
    raise ValueError(f"unknown kind {kind}")
