"""Trains one XGBoost model of every kind and writes what the library says of some rows.

usage: train.py OUT_DIR [tiny]

For each kind and format: KIND.FORMAT (the model) and, as the library reads that
file, KIND.FORMAT.margin.txt, KIND.FORMAT.out.txt (predictions),
KIND.FORMAT.range.txt (margins of rounds 1 to 3) and after early stopping
KIND.FORMAT.best.txt (as the scikit-learn wrapper predicts) of the rows in rows.txt, a row a
line; numbers are hexadecimal, so that no bit is lost. Formats are json, ubj and
bst, the binary format; which of them there are, and which kinds, depends on the
library's version. "tiny" makes the small models that are committed beside this file
for several versions, with some of the kinds and formats: KINDS and FORMATS list them.
"""

import os
import sys
import warnings

import numpy as np
import xgboost as xgb

warnings.filterwarnings("ignore")
OUT, TINY = sys.argv[1], len(sys.argv) > 2
VERSION = tuple(int(v) for v in xgb.__version__.split(".")[:2])
TRAIN, ROWS, ROUNDS, DEPTH = (300, 12, 4, 3) if TINY else (1500, 400, 20, 6)
FEATURES = 6 if TINY else 10
CATEGORICAL = [1, 3]
COMMON = dict(max_depth=DEPTH, eta=0.3, seed=7, nthread=1, verbosity=0)
if VERSION >= (1, 0):
    COMMON["tree_method"] = "hist"


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
    """Give (name, least version, parameters, label, what more the data has)."""
    y = target(x) + rng.normal(size=len(x)) * 0.1
    three = np.digitize(y, [-1, 1]).astype(float)
    positive = np.abs(y) + 0.1
    probability = 1 / (1 + np.exp(-y))
    groups = dict(group=[20] * (len(x) // 20))
    reg = dict(objective="reg:squarederror")
    always = (0, 90)
    yield "squarederror", always, reg, y, {}
    yield "base_score", always, dict(reg, base_score=0.12345679), y, {}
    yield "exact", always, dict(reg, tree_method="exact"), y, {}
    yield "squaredlogerror", (1, 0), dict(objective="reg:squaredlogerror"), positive, {}
    yield "reg_logistic", always, dict(objective="reg:logistic"), probability, {}
    yield "pseudohuber", (1, 3), dict(objective="reg:pseudohubererror"), y, {}
    yield "absoluteerror", (1, 7), dict(objective="reg:absoluteerror"), y, {}
    yield "gamma", always, dict(objective="reg:gamma"), positive, {}
    yield "tweedie", always, dict(objective="reg:tweedie"), positive, {}
    yield "poisson", always, dict(objective="count:poisson"), np.round(positive), {}
    yield "cox", always, dict(objective="survival:cox"), positive, {}
    yield "aft", (1, 2), dict(objective="survival:aft"), positive, dict(aft=True)
    yield "binary", always, dict(objective="binary:logistic"), y > 0, {}
    yield "binary_skewed", always, dict(
        objective="binary:logistic", scale_pos_weight=3
    ), y > 4, {}
    yield "logitraw", always, dict(objective="binary:logitraw"), y > 0, {}
    yield "hinge", always, dict(objective="binary:hinge"), y > 0, {}
    yield "softmax", always, dict(objective="multi:softmax", num_class=3), three, {}
    yield "softprob", always, dict(objective="multi:softprob", num_class=3), three, {}
    for name in "pairwise", "ndcg", "map":
        label = three > 1 if name == "map" else three
        yield f"rank_{name}", always, dict(objective=f"rank:{name}"), label, groups
    alphas = np.array([0.1, 0.5, 0.9])
    quantile = dict(objective="reg:quantileerror", quantile_alpha=alphas)
    yield "quantile", (2, 0), quantile, y, {}
    yield "quantile_one", (2, 0), dict(quantile, quantile_alpha=0.7), y, {}
    forest = dict(num_parallel_tree=4, subsample=0.6, colsample_bynode=0.5)
    yield "forest", always, dict(reg, eta=1, **forest), y, {}
    yield "forest_softprob", always, dict(
        objective="multi:softprob", num_class=3, **forest
    ), three, {}
    yield "lossguide", (1, 0), dict(
        reg, grow_policy="lossguide", max_leaves=40, max_depth=0
    ), y, {}
    yield "monotone", always, dict(
        reg, monotone_constraints="(1" + ",0" * (FEATURES - 1) + ")"
    ), y, {}
    dart = dict(booster="dart", rate_drop=0.4, skip_drop=0.0, one_drop=1)
    yield "dart", always, dict(reg, **dart), y, {}
    yield "dart_softprob", always, dict(
        objective="multi:softprob", num_class=3, **dart
    ), three, {}
    yield "dart_forest_binary", always, dict(
        objective="binary:logistic", **dart, num_parallel_tree=3, normalize_type="forest"
    ), y > 0, {}
    linear = dict(booster="gblinear", updater="coord_descent")
    yield "linear", always, dict(reg, **linear), y, {}
    yield "linear_softprob", always, dict(
        objective="multi:softprob", num_class=3, **linear
    ), three, {}
    yield "linear_poisson", always, dict(objective="count:poisson", **linear), np.round(
        positive
    ), {}
    types = ["c" if i in CATEGORICAL else "float" for i in range(FEATURES)]
    names = [f"column {i}" for i in range(FEATURES)]
    yield "named", (1, 4), reg, y, dict(feature_names=names)
    for name, onehot in ("onehot", 100), ("partition", 1):
        yield f"categorical_{name}", (1, 7), dict(
            reg, max_cat_to_onehot=onehot
        ), y, dict(feature_types=types, enable_categorical=True)
    yield "categorical_softprob", (1, 7), dict(
        objective="multi:softprob", num_class=3, max_cat_to_onehot=5
    ), three, dict(feature_types=types, enable_categorical=True)
    several = np.stack([y, positive, probability], axis=1)
    yield "targets", (1, 6), reg, several, {}
    yield "labels", (1, 6), dict(objective="binary:logistic"), several > 0.5, {}
    vector = dict(multi_strategy="multi_output_tree")
    yield "vector", (2, 0), dict(reg, **vector), several, {}
    yield "vector_labels", (2, 0), dict(
        objective="binary:logistic", **vector
    ), several > 0.5, {}
    yield "vector_softprob", (2, 0), dict(
        objective="multi:softprob", num_class=3, **vector
    ), three, {}
    yield "vector_forest", (2, 0), dict(reg, num_parallel_tree=2, **vector), several, {}
    yield "early", always, dict(reg, eta=1), y, dict(early=True)
    yield "empty", always, reg, y, dict(rounds=0)
    yield "stump", always, dict(reg, gamma=1e30), y, {}
    if not TINY:
        yield "large", always, reg, y, dict(rounds=500)
        yield "wide", always, dict(objective="binary:logistic", max_depth=8), y > 0, dict(
            rounds=100
        )


def train(x, params, y, extra):
    extra = dict(extra)
    group, rounds = extra.pop("group", None), extra.pop("rounds", ROUNDS)
    aft, early = extra.pop("aft", False), extra.pop("early", False)
    y = np.asarray(y, dtype=float)
    data = xgb.DMatrix(x, label=y, **extra)
    if group:
        data.set_group(group)
    if aft:
        data.set_float_info("label_lower_bound", y)
        data.set_float_info("label_upper_bound", np.where(y > 2, np.inf, y))
    more = {}
    if early:  # the noise of a random label is soon learnt by heart
        rng = np.random.default_rng(1)
        check = xgb.DMatrix(x, label=rng.permutation(y))
        more = dict(evals=[(check, "check")], early_stopping_rounds=2, verbose_eval=False)
    return xgb.train({**COMMON, **params}, data, rounds, **more)


def dump(name, rows):
    rows = np.asarray(rows, dtype=float)
    with open(os.path.join(OUT, name), "w") as f:
        for row in rows.reshape(len(rows), -1):
            f.write(" ".join(float(v).hex() for v in row) + "\n")


def files(name, booster):
    """Save in every format of this version, and give the paths."""
    path = os.path.join(OUT, name)
    if VERSION >= (1, 0):
        booster.save_model(path + ".json")
        yield path + ".json"
    if VERSION >= (1, 6):
        booster.save_model(path + ".ubj")
        yield path + ".ubj"
    if VERSION < (3, 1):
        try:
            if VERSION >= (1, 6):
                with open(path + ".bst", "wb") as f:
                    f.write(booster.save_raw("deprecated"))
            else:
                booster.save_model(path + ".bst")
        except xgb.core.XGBoostError:
            os.remove(path + ".bst")  # what the format has no place for
            return
        yield path + ".bst"


def main():
    os.makedirs(OUT, exist_ok=True)
    rng = np.random.default_rng(3)
    x, rows = table(rng, TRAIN), table(rng, ROWS)
    rows[0] = np.nan
    rows[1] = 0
    rows[2] = -1
    rows[3] = 1e30
    rows[4] = -0.5
    rows[5:8] = x[5:8]  # some of these are where a split is
    rows[8, CATEGORICAL] = 16777216, 1000
    dump("rows.txt", rows)
    wanted = os.environ.get("KINDS", "").split()
    formats = os.environ.get("FORMATS", "json ubj bst").split()
    for name, since, params, y, extra in kinds(rng, x):
        if VERSION < since or wanted and name not in wanted:
            continue
        booster = train(x, params, y, extra)
        for path in files(name, booster):
            if path.rpartition(".")[2] not in formats:
                os.remove(path)
                continue
            loaded = xgb.Booster(params=dict(nthread=1), model_file=path)
            base = os.path.basename(path)
            more = {}
            if VERSION >= (1, 4):
                more = dict(validate_features=False)
            elif "dart" in name:  # without it the old library drops trees here, too
                more = dict(ntree_limit=10**6)
            data = xgb.DMatrix(rows)
            margin = loaded.predict(data, output_margin=True, **more)
            dump(base + ".margin.txt", margin)
            dump(base + ".out.txt", loaded.predict(data, **more))
            if VERSION >= (1, 4) and extra.get("rounds") != 0 and "linear" not in name:
                ranges = dict(range=(1, 3))
                if extra.get("early"):
                    ranges["best"] = 0, booster.best_iteration + 1
                for suffix, more["iteration_range"] in ranges.items():
                    dump(
                        f"{base}.{suffix}.txt",
                        loaded.predict(data, output_margin=True, **more),
                    )
    print("xgboost", xgb.__version__)


if __name__ == "__main__":
    main()
