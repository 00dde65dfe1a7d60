"""Small ONNX models of many kinds, and what Python's onnxruntime answers to instances.

Writes NAME.onnx and cases.json to the directory that is named.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
FOLDER = Path(sys.argv[1])
CASES: list[dict] = []


def save(name, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(v, k) for k, v in constants],
    )
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, FOLDER / f"{name}.onnx")


def plain(value):
    """What a value is in JSON: NaN and infinity are null, bytes are not here."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def case(name, rows, mode, whole=False):
    """Runs each instance alone: {input: array}, without the dimension of rows."""
    session = onnxruntime.InferenceSession(FOLDER / f"{name}.onnx", providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    predictions = []
    for row in rows:
        feed = {k: v if whole else v[None] for k, v in row.items()}
        answers = []
        for value in session.run(None, feed):
            if not whole:
                value = value[0]
            answers.append(value.tolist() if hasattr(value, "tolist") else value)
        predictions.append(plain(answers[0] if len(names) == 1 else dict(zip(names, answers, strict=True))))
    instances = []
    for row in rows:
        values = {k: plain(v.tolist()) for k, v in row.items()}
        instances.append(next(iter(values.values())) if len(values) == 1 else values)
    CASES.append({"model": name, "mode": mode, "instances": instances, "predictions": predictions})


def network(random):
    weights = [("a", random.normal(size=(4, 8)).astype("f4")), ("b", random.normal(size=(8, 3)).astype("f4"))]
    save(
        "network",
        [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "b"], ["o"]),
            helper.make_node("Softmax", ["o"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["n", 4])],
        [("y", TensorProto.FLOAT, ["n", 3])],
        weights,
    )
    case("network", [{"x": row} for row in random.normal(size=(9, 4)).astype("f4")], "merged")


def types(random):
    kinds = {
        "bool": (TensorProto.BOOL, np.array([True, False])),
        "float": (TensorProto.FLOAT, np.array([0.1, np.nan], "f4")),
        "double": (TensorProto.DOUBLE, np.array([0.1, -1e300])),
        "half": (TensorProto.FLOAT16, np.array([0.1, 65504], "f2")),
        "string": (TensorProto.STRING, np.array(["é\"\\", ""], object)),
    }
    for bits in 8, 16, 32, 64:
        for sign in "int", "uint":
            info = np.iinfo(f"{sign}{bits}")
            kinds[f"{sign}{bits}"] = (getattr(TensorProto, f"{sign}{bits}".upper()), np.array([info.min, info.max], info.dtype))
    for name, (kind, row) in kinds.items():
        save(f"type-{name}", [helper.make_node("Identity", ["x"], ["y"])], [("x", kind, [None, 2])], [("y", kind, [None, 2])])
        case(f"type-{name}", [{"x": row}, {"x": row[::-1].copy()}], "merged")


def shapes(random):
    f = TensorProto.FLOAT
    axis = [("one", np.array([1], "i8")), ("zero", np.array(0, "i8"))]
    save("open", [helper.make_node("ReduceSum", ["x", "one"], ["y"], keepdims=0)], [("x", f, ["n", "length"])], [("y", f, ["n"])], axis[:1])
    case("open", [{"x": random.normal(size=k).astype("f4")} for k in (2, 2, 5, 1, 5)], "merged")
    save("single", [helper.make_node("Neg", ["x"], ["y"])], [("x", f, [1, 3])], [("y", f, [1, 3])])
    case("single", [{"x": row} for row in random.normal(size=(3, 3)).astype("f4")], "row")
    save("steps", [helper.make_node("CumSum", ["x", "zero"], ["y"])], [("x", f, ["n", 2])], [("y", f, ["n", 2])], axis[1:])
    case("steps", [{"x": random.normal(size=(k, 2)).astype("f4")} for k in (3, 1)], "all inputs", whole=True)
    save("scalar", [helper.make_node("Mul", ["x", "k"], ["y"])], [("x", f, ["n", 2]), ("k", f, [])], [("y", f, ["n", 2])])
    case("scalar", [{"x": np.ones((2, 2), "f4"), "k": np.array(3, "f4")}], "all inputs", whole=True)
    save(
        "two",
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        [("a", f, [None, 2]), ("b", f, [None, 2])],
        [("sum", f, [None, 2]), ("difference", f, [None, 2])],
    )
    pairs = random.normal(size=(4, 2, 2)).astype("f4")
    case("two", [{"a": a, "b": b} for a, b in pairs], "merged")
    save(
        "table",
        [helper.make_node("Gather", ["t", "i"], ["y"])],
        [("i", TensorProto.INT64, ["n"])],
        [("y", f, ["n", 2])],
        [("t", random.normal(size=(3, 2)).astype("f4"))],
    )
    case("table", [{"i": np.array(k, "i8")} for k in (0, 2, -1)], "merged")
    save("noise", [helper.make_node("RandomUniformLike", ["x"], ["y"])], [("x", f, [None, 2])], [("y", f, [None, 2])])


def forests(random):
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    x = random.normal(size=(200, 4)).astype("f4")
    y = (x.sum(1) > 0).astype(int) + (x[:, 0] > 1)
    onnx.save(to_onnx(RandomForestClassifier(10, max_depth=4, random_state=1).fit(x, y), x[:1], target_opset=17), FOLDER / "forest.onnx")
    case("forest", [{"X": row} for row in x[:7]], "merged")
    import pandas

    frame = pandas.DataFrame({"age": x[:, 0], "city": np.where(x[:, 1] > 0, "Ōsaka", "Kyōto")})
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"])])
    pipeline = make_pipeline(columns, LogisticRegression()).fit(frame, np.where(y > 0, "yes", "no"))
    given = [("age", FloatTensorType([None, 1])), ("city", StringTensorType([None, 1]))]
    onnx.save(to_onnx(pipeline, initial_types=given, target_opset=17), FOLDER / "pipeline.onnx")
    rows = [{"age": np.array([a], "f4"), "city": np.array([c], object)} for a, c in frame.values[:6]]
    case("pipeline", rows, "merged")


def main():
    random = np.random.default_rng(7)
    network(random)
    types(random)
    shapes(random)
    forests(random)
    (FOLDER / "cases.json").write_text(json.dumps({"library": onnxruntime.__version__, "package": str(Path(onnxruntime.__file__).parent), "cases": CASES}))


main()
