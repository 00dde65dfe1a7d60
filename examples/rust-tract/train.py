"""Trains a small neural net on scikit-learn's digits and registers it.

The net is made with numpy and written as ONNX by the onnx package: matrix products,
additions and activations, which every runtime for neural nets knows. (What skl2onnx
writes for a scikit-learn model are operators of ai.onnx.ml, which Tract has not.)
"""

import argparse
import time

import numpy as np
import onnx
from google.api_core.exceptions import NotFound
from google.cloud import aiplatform, storage
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits


def train(hidden, epochs, seed):
    """Fit one hidden layer by gradient descent; give weights and the error rate."""
    rng = np.random.default_rng(seed)
    pixels, digits = load_digits(return_X_y=True)
    order = rng.permutation(len(pixels))
    x, y = (pixels[order] / 16).astype("float32"), digits[order]
    held = len(x) // 5
    w1 = rng.normal(0, 0.2, (64, hidden)).astype("float32")
    w2 = rng.normal(0, 0.2, (hidden, 10)).astype("float32")
    b1, b2 = np.zeros(hidden, "float32"), np.zeros(10, "float32")
    for _ in range(epochs):
        for rows in np.split(np.arange(held, len(x)), range(64, len(x) - held, 64)):
            h = np.maximum(x[rows] @ w1 + b1, 0)
            p = softmax(h @ w2 + b2)
            p[np.arange(len(rows)), y[rows]] -= 1
            p /= len(rows)
            back = (p @ w2.T) * (h > 0)
            for weights, slope in (
                (w2, h.T @ p),
                (b2, p.sum(0)),
                (w1, x[rows].T @ back),
                (b1, back.sum(0)),
            ):
                weights -= 0.5 * slope
    scores = np.maximum(x[:held] @ w1 + b1, 0) @ w2 + b2
    return (w1, b1, w2, b2), float((scores.argmax(1) != y[:held]).mean())


def softmax(scores):
    """Scores of a row as probabilities."""
    e = np.exp(scores - scores.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def to_onnx(weights):
    """The net as ONNX: pixels from 0 to 16 in, probabilities out, any number of rows."""
    arrays = dict(zip(("w1", "b1", "w2", "b2"), weights, strict=True))
    arrays["w1"] = (arrays["w1"] / 16).astype("float32")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["pixels", "w1"], ["m1"]),
            helper.make_node("Add", ["m1", "b1"], ["a1"]),
            helper.make_node("Relu", ["a1"], ["h"]),
            helper.make_node("MatMul", ["h", "w2"], ["m2"]),
            helper.make_node("Add", ["m2", "b2"], ["a2"]),
            helper.make_node("Softmax", ["a2"], ["digits"], axis=1),
        ],
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["rows", 64])],
        [helper.make_tensor_value_info("digits", TensorProto.FLOAT, ["rows", 10])],
        [numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def register(content, bucket, alias):
    """Upload the file and register it as the next version of the model digits."""
    client = storage.Client()
    folder = f"digits/{time.time_ns()}"
    there = client.lookup_bucket(bucket) or client.create_bucket(bucket)
    there.blob(f"{folder}/model.onnx").upload_from_string(content)
    try:
        parent = aiplatform.Model("digits").resource_name
    except NotFound:
        parent = None
    return aiplatform.Model.upload(
        display_name="digits",
        model_id=None if parent else "digits",
        parent_model=parent,
        artifact_uri=f"gs://{bucket}/{folder}",
        # The SDK asks for one; it is read where the model is deployed to an endpoint.
        serving_container_image_uri="examples/rust-tract",
        version_aliases=[alias],
    )


def main():
    """Train, register, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bucket", default="models")
    parser.add_argument("--alias", default="champion")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    aiplatform.init(location="us-central1")
    weights, wrong = train(args.hidden, args.epochs, args.seed)
    model = register(to_onnx(weights), args.bucket, args.alias)
    print(f"digits@{args.alias} is version {model.version_id}: {wrong:.1%} wrong")


if __name__ == "__main__":
    main()
