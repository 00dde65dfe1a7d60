"""Trains one LightGBM model of every kind and writes what the library says of some rows.

usage: train.py OUT_DIR [tiny]

For each kind: KIND.model.txt (the model), KIND.raw.txt (raw scores) and KIND.out.txt
(predictions) of the rows in rows.txt, a row a line; numbers are hexadecimal, so that no bit is lost. "tiny" makes the
small models that are committed beside this file.
"""

import os
import sys

import lightgbm as lgb
import numpy as np

OUT, TINY = sys.argv[1], len(sys.argv) > 2
TRAIN, ROWS, TREES, LEAVES = (300, 12, 4, 6) if TINY else (1500, 400, 40, 31)
FEATURES = 6 if TINY else 10
COMMON = dict(
    verbose=-1,
    num_leaves=LEAVES,
    min_data_in_leaf=5,
    learning_rate=0.1,
    seed=7,
    num_threads=1,
    deterministic=True,
)
CATEGORICAL = [1, 3]


def table(rng, rows):
    x = rng.normal(size=(rows, FEATURES))
    for c in CATEGORICAL:
        x[:, c] = rng.integers(0, 40 if TINY else 70, size=rows)
    x[rng.random(x.shape) < 0.05] = np.nan
    x[rng.random(x.shape) < 0.05] = 0.0
    return x


def target(x):
    return np.nansum(x[:, [0, 2, 4]], axis=1) + np.where(
        np.nan_to_num(x[:, 1]) % 3 == 0, 4.0, -2.0
    )


def kinds(rng, x):
    y = target(x) + rng.normal(size=len(x)) * 0.1
    three = np.digitize(y, [-1, 1])
    positive = np.abs(y) + 0.1
    yield "regression", dict(objective="regression"), y, {}
    yield "regression_sqrt", dict(objective="regression", reg_sqrt=True), y, {}
    yield (
        "categorical",
        dict(
            objective="regression",
            min_data_per_group=2,
            cat_smooth=1,
            cat_l2=1,
            max_cat_to_onehot=1,
        ),
        y,
        dict(categorical_feature=CATEGORICAL),
    )
    yield "binary", dict(objective="binary", sigmoid=1.7), y > 0, {}
    yield "multiclass", dict(objective="multiclass", num_class=3), three, {}
    yield (
        "multiclassova",
        dict(objective="multiclassova", num_class=3, sigmoid=0.8),
        three,
        {},
    )
    yield "linear_tree", dict(objective="regression", linear_tree=True), y, {}
    yield "poisson", dict(objective="poisson"), positive, {}
    yield "cross_entropy", dict(objective="cross_entropy"), 1 / (1 + np.exp(-y)), {}
    yield (
        "dart",
        dict(objective="regression", boosting="dart", drop_rate=0.5, skip_drop=0.0),
        y,
        {},
    )
    yield (
        "rf",
        dict(
            objective="regression", boosting="rf", bagging_freq=1, bagging_fraction=0.7
        ),
        y,
        {},
    )
    yield (
        "zero_as_missing",
        dict(objective="regression", zero_as_missing=True),
        y,
        dict(categorical_feature=[3]),
    )
    yield (
        "lambdarank",
        dict(objective="lambdarank"),
        three,
        dict(group=[20] * (len(x) // 20)),
    )
    if not TINY:
        yield "large", dict(objective="regression", num_leaves=63, rounds=500), y, {}


def dump(name, rows):
    with open(os.path.join(OUT, name), "w") as f:
        for row in np.atleast_2d(rows):
            f.write(" ".join(float(v).hex() for v in row) + "\n")


def main():
    os.makedirs(OUT, exist_ok=True)
    rng = np.random.default_rng(3)
    x, rows = table(rng, TRAIN), table(rng, ROWS)
    rows[0] = np.nan
    rows[1] = 0
    rows[2] = -1
    rows[3] = 1e30
    rows[4] = -0.5
    dump("rows.txt", rows)
    for name, params, y, extra in kinds(rng, x):
        rounds = params.pop("rounds", TREES)
        data = lgb.Dataset(
            x,
            label=np.asarray(y, dtype=float),
            params={**COMMON, **params},
            free_raw_data=False,
            **extra,
        )
        booster = lgb.train({**COMMON, **params}, data, num_boost_round=rounds)
        path = os.path.join(OUT, name + ".model.txt")
        booster.save_model(path)
        if TINY:  # without the importances and parameters, which nobody reads
            text = open(path).read()
            open(path, "w").write(text[: text.index("end of trees")] + "end of trees\n")
        loaded = lgb.Booster(model_file=path)
        for suffix, raw in (("raw", True), ("out", False)):
            scores = loaded.predict(rows, raw_score=raw)
            dump(f"{name}.{suffix}.txt", scores.reshape(len(rows), -1))
    print("lightgbm", lgb.__version__)


if __name__ == "__main__":
    main()
