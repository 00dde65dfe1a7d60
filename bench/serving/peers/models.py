"""Trains the models of the benchmark: models.py FOLDER."""

import json
import sys
from pathlib import Path

import joblib
import lightgbm
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PREDICTOR = """
from google.cloud.aiplatform.prediction.sklearn.predictor import SklearnPredictor


class Linear(SklearnPredictor):
    pass
"""


def folder(root, kind, rows):
    """Make the folder of a model and write the rows that it is asked with."""
    where = root / kind / "model"
    where.mkdir(parents=True)
    (root / kind / "rows.json").write_text(json.dumps(np.round(rows, 4).tolist()))
    return where


def convolutions(random):
    """A small network of convolutions over pictures of 8 by 8."""

    def weights(name, *shape):
        values = random.standard_normal(shape) * 0.1
        return numpy_helper.from_array(values.astype(np.float32), name)

    three = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    two = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Reshape", ["x", "square"], ["picture"]),
        helper.make_node("Conv", ["picture", "w1", "b1"], ["c1"], **three),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], **three),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["m"], **two),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["g"]),
        helper.make_node("Softmax", ["g"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        [
            numpy_helper.from_array(np.array([-1, 1, 8, 8], dtype=np.int64), "square"),
            weights("w1", 16, 1, 3, 3),
            weights("b1", 16),
            weights("w2", 32, 16, 3, 3),
            weights("b2", 32),
            weights("w3", 512, 10),
            weights("b3", 10),
        ],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.checker.check_model(model)
    return model


def main():
    """Train and write all of them."""
    root = Path(sys.argv[1])
    random = np.random.default_rng(1)
    rows = random.standard_normal((2000, 20))
    target = rows[:, 0] * rows[:, 1] + np.sin(rows[:, 2])
    target += 0.1 * random.standard_normal(2000)
    data = lightgbm.Dataset(rows, target)
    settings = {"objective": "regression", "num_leaves": 31}
    quiet = {"verbose": -1, "num_threads": 1}
    booster = lightgbm.train({**settings, **quiet}, data, 60)
    booster.save_model(folder(root, "lgbm", rows[:64]) / "model.txt")
    linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, target > 0)
    joblib.dump(linear, folder(root, "sklearn", rows[:64]) / "model.joblib")
    routine = folder(root, "cpr", rows[:64])
    joblib.dump(linear, routine / "model.joblib")
    (routine / "predictor.py").write_text(PREDICTOR)
    (routine / "requirements.txt").write_text("scikit-learn==1.6.1\njoblib\n")
    pictures = folder(root, "onnx", random.random((64, 64)))
    onnx.save(convolutions(random), pictures / "model.onnx")


if __name__ == "__main__":
    main()
