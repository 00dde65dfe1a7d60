"""The pipelines: render and train; and, once all drawings are embedded, datapoints.

Each component in Python is a plain function that runs in an environment of its own, so
it imports what it needs inside. The step that renders is a program in Rust: run.py has
`tategu task from` make a component of it.

JAX fits the network: it is a numpy with gradients and convolutions, and its wheels for
processors are small beside torch's, which bring gigabytes for GPUs. (autograd has no
convolutions, tinygrad needs a C compiler where it runs.)
"""

from typing import Any

from kfp import dsl

BASE_IMAGE = "python:3.11"
TRAIN_PACKAGES = ["jax==0.10.2", "numpy==2.4.6", "onnx==1.23.2"]


@dsl.component(base_image=BASE_IMAGE)
def split(bitmaps: dsl.Input[dsl.Dataset], labels: dsl.Output[dsl.Dataset]) -> None:
    """Say of each drawing what it shows, and hold out one concept in five.

    A concept is a name without words for its style, in any order of words: heart-fill,
    heart-outline and heart are one. A family that has one drawing under two names joins
    these names.
    """
    import json
    import zlib

    styles = {"fill", "filled", "outline", "outlined", "line", "variant", "regular"}
    joined: dict[str, str] = {}

    def concept(name: str) -> str:
        found = " ".join(sorted(w for w in name.split("-") if w not in styles)) or name
        while (next_ := joined.setdefault(found, found)) != found:
            found = next_
        return found

    with open(bitmaps.path) as f:
        rows = [json.loads(line) for line in f]
    first: dict[tuple[str, str], str] = {}  # the first name of each drawing
    for row in rows:
        other = first.setdefault((row["family"], row["pixels"]["b64"]), row["name"])
        joined[concept(row["name"])] = concept(other)
    families: dict[str, set[str]] = {}
    for row in rows:
        families.setdefault(concept(row["name"]), set()).add(row["family"])
    held = {c for c in families if zlib.crc32(c.encode()) % 5 == 0}
    with open(labels.path, "w") as f:
        for row in rows:
            of = concept(row["name"])
            label = {"id": row["id"], "family": row["family"], "concept": of}
            label["held_out"] = of in held
            label["elsewhere"] = len(families[of]) > 1  # another family has it too
            f.write(json.dumps(label) + "\n")
    labels.metadata["concepts"] = len(families)
    labels.metadata["in_several_families"] = sum(len(f) > 1 for f in families.values())
    print(
        f"{len(rows)} drawings of {len(families)} concepts, {len(held)} of them held out"
    )


@dsl.component(base_image=BASE_IMAGE, packages_to_install=TRAIN_PACKAGES)
def train(
    bitmaps: dsl.Input[dsl.Dataset],
    labels: dsl.Input[dsl.Dataset],
    steps: int,
    seed: int,
    model: dsl.Output[dsl.Model],
) -> None:
    """Fit a network that puts drawings of one concept side by side; write it as ONNX.

    Each step takes a pair of drawings of each of 256 concepts, from different families
    where there are such, stretches and shifts them at random, and asks of each drawing
    which of the 256 is its partner (InfoNCE). Concepts that are held out are not seen.
    """
    import base64
    import json
    import os
    import time

    import jax
    import jax.numpy as jnp
    import numpy as np
    import onnx
    from jax import lax
    from onnx import TensorProto, helper, numpy_helper

    channels, dimensions, batch, temperature, rate = (
        (16, 32, 64, 128),
        64,
        256,
        0.07,
        3e-3,
    )
    with open(bitmaps.path) as f:
        rows = [json.loads(line)["pixels"]["b64"] for line in f]
    with open(labels.path) as f:
        known = [json.loads(line) for line in f]
    pixels = np.stack([np.frombuffer(base64.b64decode(r), np.uint8) for r in rows])
    side = int(np.sqrt(pixels.shape[1]))
    pixels = pixels.reshape(-1, side, side)
    rng = np.random.default_rng(seed)

    groups: dict[str, list[int]] = {}
    for i, label in enumerate(known):
        if not label["held_out"]:
            groups.setdefault(label["concept"], []).append(i)
    pairs = []  # for each concept, each drawing with those that may be its partner
    for group in groups.values():
        family = {i: known[i]["family"] for i in group}
        choices = []
        for i in group:
            others = [k for k in group if family[k] != family[i]]
            others = others or [k for k in group if k != i]
            if others:
                choices.append((i, others))
        if choices:
            pairs.append(choices)
    batch = min(batch, len(pairs))
    print(f"{len(pairs)} concepts to learn from, {len(known)} drawings in all")

    def draw():
        """A pair of drawings of each of some concepts."""
        chosen = rng.choice(len(pairs), batch, replace=False)
        ones, partners = [], []
        for at in chosen:
            one, others = pairs[at][rng.integers(len(pairs[at]))]
            ones.append(one)
            partners.append(others[rng.integers(len(others))])
        return pixels[ones], pixels[partners]

    def start(*shape):
        """Weights before training, so that each layer keeps the size of its input."""
        inputs = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
        return rng.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32)

    weights, wide = [], 1
    for width in channels:
        weights.append((start(width, wide, 3, 3), np.zeros(width, np.float32)))
        wide = width
    left = side
    for _ in channels:
        left = (left + 1) // 2
    flat = left * left * wide
    weights.append((start(flat, dimensions), np.zeros(dimensions, np.float32)))

    def embed(weights, x):
        """Vectors of length 1."""
        x = x[:, None].astype(jnp.float32) / 255
        for w, b in weights[:-1]:
            x = lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1)))
            x = jax.nn.relu(x + b[:, None, None])
        x = x.reshape(len(x), -1) @ weights[-1][0] + weights[-1][1]
        return x / jnp.sqrt((x * x).sum(1, keepdims=True) + 1e-6)

    def stretch(x, key):
        """Other widths, heights and places: two products of matrices for each."""

        def along(key):
            of_scale, of_shift = jax.random.split(key)
            scale = jnp.exp(
                jax.random.uniform(of_scale, (len(x), 1), minval=-0.2, maxval=0.2)
            )
            shift = jax.random.uniform(of_shift, (len(x), 1), minval=-0.08, maxval=0.08)
            middle = (side - 1) / 2
            at = (jnp.arange(side) - middle) * scale + middle + shift * side
            return jnp.maximum(0, 1 - jnp.abs(at[:, :, None] - jnp.arange(side)))

        down, across = jax.random.split(key)
        return along(down) @ x.astype(jnp.float32) @ along(across).transpose(0, 2, 1)

    def loss(weights, ones, partners):
        alike = embed(weights, ones) @ embed(weights, partners).T / temperature
        right = jnp.arange(len(ones))
        there = jax.nn.log_softmax(alike, 1)[right, right]
        back = jax.nn.log_softmax(alike, 0)[right, right]
        return -(there + back).mean() / 2

    @jax.jit
    def step(weights, mean, square, ones, partners, key, n):
        """One step of Adam; the rate rises for 50 steps, then falls by a cosine."""
        keys = jax.random.split(key)
        views = stretch(ones, keys[0]), stretch(partners, keys[1])
        lost, slope = jax.value_and_grad(loss)(weights, *views)
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, slope)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, slope)
        now = rate * jnp.minimum(1, n / 50) * (1 + jnp.cos(jnp.pi * n / steps)) / 2
        weights = jax.tree.map(
            lambda w, m, v: (
                w
                - now
                * (m / (1 - 0.9**n) / (jnp.sqrt(v / (1 - 0.999**n)) + 1e-8) + 1e-4 * w)
            ),
            weights,
            mean,
            square,
        )
        return weights, mean, square, lost

    mean = square = jax.tree.map(np.zeros_like, weights)
    key = jax.random.key(seed)
    began = time.monotonic()
    for n in range(1, steps + 1):
        key, own = jax.random.split(key)
        weights, mean, square, lost = step(weights, mean, square, *draw(), own, n)
        if n % max(steps // 10, 1) == 0:
            took = time.monotonic() - began
            print(
                f"step {n} of {steps}, loss {float(lost):.3f}, {took:.0f} s", flush=True
            )
    if not np.isfinite(float(lost)):
        raise ValueError("the loss is no number: train with another seed")
    weights = jax.tree.map(np.asarray, weights)

    # The same network in ONNX: bytes of ink in, vectors out, any number of rows.
    nodes = [
        helper.make_node("Cast", ["pixels"], ["ink"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["ink", "most"], ["part"]),
        helper.make_node("Unsqueeze", ["part", "one"], ["x0"]),
    ]
    arrays = {"most": np.float32(255), "one": np.array([1])}
    for n, (w, b) in enumerate(weights[:-1]):
        arrays[f"w{n}"], arrays[f"b{n}"] = w, b
        nodes += [
            helper.make_node(
                "Conv",
                [f"x{n}", f"w{n}", f"b{n}"],
                [f"c{n}"],
                strides=[2, 2],
                pads=[1, 1, 1, 1],
            ),
            helper.make_node("Relu", [f"c{n}"], [f"x{n + 1}"]),
        ]
    arrays["wide"], arrays["bias"] = weights[-1]
    nodes += [
        helper.make_node("Flatten", [f"x{len(channels)}"], ["flat"]),
        helper.make_node("Gemm", ["flat", "wide", "bias"], ["long"]),
        helper.make_node("LpNormalization", ["long"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "drawings",
        [
            helper.make_tensor_value_info(
                "pixels", TensorProto.UINT8, ["rows", side, side]
            )
        ],
        [
            helper.make_tensor_value_info(
                "embedding", TensorProto.FLOAT, ["rows", dimensions]
            )
        ],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.checker.check_model(made)
    os.makedirs(model.path)
    onnx.save(made, os.path.join(model.path, "model.onnx"))

    # A few drawings with the vectors that JAX gives them: no deployment is done before
    # the file gives the same.
    some = rng.choice(len(known), 8, replace=False)
    vectors = np.asarray(embed(weights, pixels[some]), np.float64)
    with open(os.path.join(model.path, "tategu-samples.jsonl"), "w") as f:
        for i, vector in zip(some, vectors, strict=True):
            sample = {
                "instance": {"pixels": {"b64": rows[i]}},
                "prediction": vector.tolist(),
            }
            f.write(json.dumps({**sample, "tolerance": 1e-3}) + "\n")
    model.metadata["loss"], model.metadata["dimensions"] = float(lost), dimensions


@dsl.component(base_image=BASE_IMAGE)
def datapoints(
    bitmaps: dsl.Input[dsl.Dataset],
    predictions: dsl.Input[dsl.Dataset],
    points: dsl.Output[dsl.Dataset],
) -> None:
    """What a batch prediction job wrote, as an index reads it.

    Each datapoint brings its drawing along, so that who searches needs no other source.
    """
    import json
    import os

    vectors = {}
    for name in sorted(os.listdir(predictions.path)):
        if name.startswith("prediction.results"):
            with open(os.path.join(predictions.path, name)) as f:
                for line in map(json.loads, f):
                    vectors[line["key"]] = line["prediction"]
    os.makedirs(points.path)
    with (
        open(bitmaps.path) as f,
        open(os.path.join(points.path, "drawings.json"), "w") as out,
    ):
        for row in map(json.loads, f):
            point = {
                "id": row["id"],
                "embedding": vectors.pop(row["id"]),
                "restricts": [{"namespace": "family", "allow": [row["family"]]}],
                "crowding_tag": row["family"],
                "embedding_metadata": {"svg": row["svg"]},
            }
            out.write(json.dumps(point) + "\n")
            points.metadata["datapoints"] = points.metadata.get("datapoints", 0) + 1
    print(f"{points.metadata['datapoints']} datapoints")


def train_pipeline(render: Any) -> Any:
    """The training pipeline, with the component that renders."""

    @dsl.pipeline(name="train-similar-drawings")
    def train_pipeline(packages_uri: str, steps: int = 600, seed: int = 1) -> None:
        """From packages of drawings to a network."""
        packages = dsl.importer(
            artifact_uri=packages_uri, artifact_class=dsl.Artifact, reimport=False
        )
        rendered = render(drawings=packages.output)
        bitmaps = rendered.outputs["bitmaps"]
        labelled = split(bitmaps=bitmaps)
        train(
            bitmaps=bitmaps, labels=labelled.outputs["labels"], steps=steps, seed=seed
        )

    return train_pipeline


@dsl.pipeline(name="index-similar-drawings")
def index_pipeline(bitmaps_uri: str, predictions_uri: str) -> None:
    """From drawings and their vectors to the datapoints of an index."""
    bitmaps = dsl.importer(
        artifact_uri=bitmaps_uri, artifact_class=dsl.Dataset, reimport=False
    )
    predictions = dsl.importer(
        artifact_uri=predictions_uri, artifact_class=dsl.Dataset, reimport=False
    )
    datapoints(bitmaps=bitmaps.output, predictions=predictions.output)
