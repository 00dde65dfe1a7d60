"""The training pipeline: split, features, train, evaluate, and publish if better.

Each component is a plain function that runs in an environment of its own, so it
imports what it needs inside.
"""

from typing import Any, NamedTuple

from kfp import dsl

BASE_IMAGE = "python:3.11"
PACKAGES = ["lightgbm==4.7.0", "numpy==2.4.6", "pandas==3.1.1"]


@dsl.component(base_image=BASE_IMAGE, packages_to_install=PACKAGES)
def split(
    orders: dsl.Input[dsl.Dataset],
    test_size: int,
    validation_size: int,
    parts: dsl.Output[dsl.Dataset],
) -> None:
    """Mark each buyer's last orders as test, the ones before as validation."""
    import numpy as np
    import pandas as pd

    table = pd.read_csv(orders.path, dtype={"buyer": str, "supplier": str})
    table = table.sort_values(["buyer", "time"], kind="stable")
    # 1 is the buyer's last order, 2 the one before, ...
    back = table.groupby("buyer").cumcount(ascending=False) + 1
    table["part"] = np.select(
        [back <= test_size, back <= test_size + validation_size],
        ["test", "validation"],
        "train",
    )
    counts = table["part"].value_counts()
    for part in ("train", "validation", "test"):
        if not counts.get(part):
            raise ValueError(
                f"no {part} rows: every buyer needs more than "
                f"{test_size + validation_size} orders, {len(table)} orders given"
            )
        parts.metadata[f"{part}_rows"] = int(counts[part])
    table.to_csv(parts.path, index=False)
    print(f"{table['buyer'].nunique()} buyers: {dict(counts)}")


@dsl.component(base_image=BASE_IMAGE, packages_to_install=PACKAGES)
def features(
    orders: dsl.Input[dsl.Dataset],
    purpose: str,
    positive: float,
    examples: dsl.Output[dsl.Dataset],
    candidates: dsl.Output[dsl.Dataset],
) -> None:
    """Describe (buyer, supplier) pairs by what was known before a moment.

    purpose "train": examples are windows of ten orders from the training part
    (to fit) and the validation part (to stop early), each with unseen suppliers
    beside them; candidates are all suppliers at the start of each buyer's test
    part. purpose "predict": candidates are all suppliers as of now.

    Nothing leaks: statistics over other buyers are those of the evening before,
    statistics of the buyer's own stop at the first order of the window, and rows
    of the test part are never counted.
    """
    import numpy as np
    import pandas as pd

    window, windows, negatives, half_life = 10, 5, 40, 14
    day_seconds = 86_400

    table = pd.read_csv(orders.path, dtype={"buyer": str, "supplier": str})
    table = table.sort_values(["buyer", "time"], kind="stable")
    if "part" not in table or purpose == "predict":
        table["part"] = "train"
    buyer_row, buyers = pd.factorize(table["buyer"])
    supplier_row, suppliers = pd.factorize(table["supplier"])
    outcome = table["outcome"].to_numpy(np.float32)
    liked = outcome >= positive
    time = table["time"].to_numpy(np.float64)
    day = ((time - time.min()) // day_seconds).astype(int)
    part = table["part"].to_numpy(str)
    first = np.searchsorted(buyer_row, np.arange(len(buyers) + 1))
    n_suppliers = len(suppliers)

    # What the table says about suppliers: texts become tags, numbers stay.
    known = table.drop_duplicates("supplier")
    tags = np.zeros((n_suppliers, 0), np.float32)
    numbers = np.zeros((n_suppliers, 0), np.float32)
    number_names = []
    for column in [c for c in table if c.startswith("supplier_")]:
        if column == "supplier_title":
            continue
        if pd.api.types.is_numeric_dtype(known[column]):
            value = known[column].fillna(known[column].median()).to_numpy(np.float32)
            numbers = np.column_stack([numbers, value])
            number_names.append(column)
        else:
            dummies = known[column].fillna("").astype(str).str.get_dummies(" ")
            # Where pyarrow is installed, no tag at all is a column too.
            dummies = dummies.drop(columns="", errors="ignore")
            tags = np.column_stack([tags, dummies.to_numpy(np.float32)])
    tag_share = tags / np.maximum(tags.sum(1, keepdims=True), 1)

    # What it says about buyers: numbers as they are and in bands, texts as groups.
    who = table.drop_duplicates("buyer")
    buyer_static = np.zeros((len(buyers), 0), np.float32)
    static_names, groups, group_names = [], [], []
    for column in [c for c in table if c.startswith("buyer_")]:
        if pd.api.types.is_numeric_dtype(who[column]):
            value = who[column].fillna(who[column].median()).to_numpy(np.float32)
            bands = np.quantile(value, [0.2, 0.4, 0.6, 0.8])
            groups.append(np.searchsorted(bands, value))
        else:
            codes = pd.factorize(who[column].fillna(""), sort=True)[0]
            groups.append(codes)
            value = codes.astype(np.float32)
        buyer_static = np.column_stack([buyer_static, value])
        static_names.append(column)
        group_names.append(f"popularity_in_{column}")

    pair_names = [
        "supplier_log_orders",
        "supplier_quality",
        "supplier_liked_share",
        "supplier_recent_orders",
        *number_names,
        "similar_to_orders",
        "similar_to_liked",
        "similar_to_recent",
        "tag_share",
        "tag_liked",
        *[f"distance_{name}" for name in number_names],
        *group_names,
    ]
    own_names = ["orders", "mean_outcome", "liked_share", *static_names]

    # Moments: (buyer, first row of the window, row after it, what for).
    moments = []
    for buyer in range(len(buyers)):
        low, high = first[buyer], first[buyer + 1]
        if purpose == "predict":
            moments.append((buyer, high, high, "candidates"))
            continue
        of_test = low + np.flatnonzero(part[low:high] == "test")
        of_validation = low + np.flatnonzero(part[low:high] == "validation")
        if len(of_test):
            moments.append((buyer, of_test[0], of_test[-1] + 1, "candidates"))
        if len(of_validation):
            end = of_validation[0]
            moments.append((buyer, end, of_validation[-1] + 1, "validation"))
            for start in range(end - window, end - window * windows - 1, -window):
                if start >= low + window // 2:
                    moments.append((buyer, start, start + window, "train"))
    last_day = day.max() + 1
    moment_day = np.array([day[m[1]] if m[1] < m[2] else last_day for m in moments])

    # Running totals over everything ordered before the day at hand.
    orders_n = np.zeros(n_suppliers, np.float32)
    liked_n = np.zeros(n_suppliers, np.float32)
    outcome_sum = np.zeros(n_suppliers, np.float32)
    recent_n = np.zeros(n_suppliers, np.float32)
    in_group = [np.zeros((g.max() + 1, n_suppliers), np.float32) for g in groups]
    together = np.zeros((n_suppliers, n_suppliers), np.float32)
    liked_together = np.zeros((n_suppliers, n_suppliers), np.float32)
    ordered = np.zeros((len(buyers), n_suppliers), np.float32)
    ordered_liked = np.zeros((len(buyers), n_suppliers), np.float32)

    pairs = np.zeros((len(buyers), n_suppliers, len(pair_names)), np.float16)
    owns = np.zeros((len(buyers), len(own_names)), np.float16)
    seen = np.ones((len(buyers), n_suppliers), bool)
    wanted = np.zeros((len(buyers), n_suppliers), bool)
    popularity = np.zeros(n_suppliers, np.float32)
    fit = {kind: ([], [], []) for kind in ("train", "validation")}

    def similarity(history, matrix, weight):
        total = np.maximum(history.sum(1, keepdims=True), 1)
        return 100 * ((history * weight) @ matrix) * weight / total

    def describe(chunk):
        """Features of all suppliers for some moments of one day."""
        count = len(chunk)
        # What an unknown supplier or buyer is taken for: the mean so far.
        ordered_n = orders_n.sum()
        usual = outcome_sum.sum() / ordered_n if ordered_n else positive
        who_ = np.array([m[0] for m in chunk])
        history = np.zeros((count, n_suppliers), np.float32)
        likes = np.zeros_like(history)
        recent = np.zeros_like(history)
        mean = np.full(count, usual, np.float32)
        for k, (buyer, start, _, _) in enumerate(chunk):
            rows = slice(first[buyer], start)
            mine = supplier_row[rows]
            history[k, mine] = 1
            likes[k, mine[liked[rows]]] = 1
            recent[k, mine[-window:]] = 1
            if len(mine):
                mean[k] = outcome[rows].mean()
        total = history.sum(1)
        by_orders, by_likes = 1 / np.sqrt(orders_n + 5), 1 / np.sqrt(liked_n + 5)
        tag_orders = history @ tags
        columns = [
            np.log1p(orders_n),
            (outcome_sum + 5 * usual) / (orders_n + 5),
            (liked_n + 2.5) / (orders_n + 5),
            np.log1p(recent_n),
            *numbers.T,
            similarity(history, together, by_orders),
            similarity(likes, liked_together, by_likes),
            similarity(recent, together, by_orders),
            (tag_orders / np.maximum(total, 1)[:, None]) @ tag_share.T,
            ((likes @ tags + 1) / (tag_orders + 2)) @ tag_share.T,
        ]
        for value in numbers.T:
            centre = (history @ value) / np.maximum(total, 1)
            columns.append(np.abs(value - centre[:, None]))
        for totals, group in zip(in_group, groups):
            columns.append(totals[group[who_]] / (orders_n + 5))
        shape = (count, n_suppliers)
        stacked = np.stack([np.broadcast_to(c, shape) for c in columns], axis=-1)
        own = np.column_stack(
            [total, mean, likes.sum(1) / np.maximum(total, 1), buyer_static[who_]]
        )
        return stacked.astype(np.float16), own.astype(np.float16), history > 0

    def mix(value):
        """SplitMix64, so that a step in another language draws the same numbers."""
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))

    def draws(stream, moment, which):
        """A number in (0, 1] for each supplier, by its place alone."""
        buyer, start, _, _ = moment
        hash_ = mix(np.array([stream], np.uint64))
        for place in (buyer, start, which):
            hash_ = mix(hash_ ^ np.asarray(place, np.uint64))
        return ((hash_ >> np.uint64(11)) + np.uint64(1)) / 2.0**53

    def add_examples(kind, moment, block, own, history):
        """One group: the window's orders, with unseen suppliers beside them."""
        _, start, end, _ = moment
        positives = supplier_row[start:end]
        label = np.zeros(n_suppliers, np.int8)
        label[positives] = 1 + liked[start:end]
        free = ~history
        free[positives] = False
        unseen = np.flatnonzero(free)
        half = min(negatives // 2, len(unseen))
        evenly = draws(0, moment, unseen)
        # Exponential clocks: the chance to be early is as large as the weight.
        weight = orders_n[unseen].astype(np.float64) + 1
        by_orders = -np.log(draws(1, moment, unseen)) / weight
        sampled = np.concatenate(
            [
                unseen[np.argsort(key, kind="stable")[:half]]
                for key in (evenly, by_orders)
            ]
        )
        # Sorted, so that equal scores favour nobody.
        rows = np.unique(np.concatenate([positives, sampled]))
        x, y, group = fit[kind]
        x.append(np.hstack([block[rows], np.tile(own, (len(rows), 1))]))
        y.append(label[rows])
        group.append(len(rows))

    def count_day(rows):
        """Add one day's orders to the totals."""
        here = np.unique(buyer_row[rows])
        for state, matrix, which in (
            (ordered, together, rows),
            (ordered_liked, liked_together, rows[liked[rows]]),
        ):
            before = state[here]
            state[buyer_row[which], supplier_row[which]] = 1
            added = state[here] - before
            matrix += added.T @ state[here] + before.T @ added
        np.add.at(orders_n, supplier_row[rows], 1)
        np.add.at(liked_n, supplier_row[rows], liked[rows])
        np.add.at(outcome_sum, supplier_row[rows], outcome[rows])
        np.add.at(recent_n, supplier_row[rows], 1)
        for totals, group in zip(in_group, groups):
            np.add.at(totals, (group[buyer_row[rows]], supplier_row[rows]), 1)

    usable = np.flatnonzero(part != "test")
    usable = usable[np.argsort(day[usable], kind="stable")]
    edges = np.searchsorted(day[usable], np.arange(last_day + 2))
    by_day = [[] for _ in range(last_day + 1)]
    for moment, when in zip(moments, moment_day):
        by_day[when].append(moment)
    for today in range(last_day + 1):
        for at in range(0, len(by_day[today]), 64):
            chunk = by_day[today][at : at + 64]
            block, own, history = describe(chunk)
            for k, moment in enumerate(chunk):
                buyer, start, end, kind = moment
                if kind == "candidates":
                    pairs[buyer], owns[buyer], seen[buyer] = (
                        block[k],
                        own[k],
                        history[k],
                    )
                    likes = supplier_row[start:end][liked[start:end]]
                    wanted[buyer, likes] = True
                else:
                    add_examples(kind, moment, block[k], own[k], history[k])
        recent_n *= 0.5 ** (1 / half_life)
        rows = usable[edges[today] : edges[today + 1]]
        if len(rows):
            count_day(rows)
    popularity[:] = orders_n

    titles = known["supplier_title"] if "supplier_title" in known else known["supplier"]
    names = np.array(pair_names + own_names)
    with open(candidates.path, "wb") as f:
        np.savez(
            f,
            pairs=pairs,
            owns=owns,
            seen=seen,
            wanted=wanted,
            popularity=popularity,
            buyers=np.array(buyers, dtype=str),
            suppliers=np.array(suppliers, dtype=str),
            titles=titles.to_numpy(str),
            names=names,
        )
    arrays = {"names": names}
    for kind, (x, y, group) in fit.items():
        if x:
            arrays[f"{kind}_x"] = np.concatenate(x)
            arrays[f"{kind}_y"] = np.concatenate(y)
            arrays[f"{kind}_group"] = np.array(group)
    with open(examples.path, "wb") as f:
        np.savez(f, **arrays)
    examples.metadata["features"] = len(names)
    print(f"{len(names)} features, {len(fit['train'][2])} groups to train on")


def features_in(image: str) -> Any:
    """The features step as a program in an image, built from ../rust-features."""

    @dsl.container_component
    def features(
        orders: dsl.Input[dsl.Dataset],
        purpose: str,
        positive: float,
        examples: dsl.Output[dsl.Dataset],
        candidates: dsl.Output[dsl.Dataset],
    ):
        return dsl.ContainerSpec(
            image=image,
            args=[
                *("--orders", orders.path, "--purpose", purpose),
                *("--positive", positive, "--examples", examples.path),
                *("--candidates", candidates.path),
            ],
        )

    return features


@dsl.component(base_image=BASE_IMAGE, packages_to_install=PACKAGES)
def train(
    examples: dsl.Input[dsl.Dataset],
    num_leaves: int,
    learning_rate: float,
    rounds: int,
    model: dsl.Output[dsl.Model],
) -> None:
    """LightGBM lambdarank, one group per window of a buyer's orders."""
    import os

    import lightgbm as lgb
    import numpy as np

    data = np.load(examples.path)
    names = [str(name) for name in data["names"]]

    def dataset(kind, reference=None):
        return lgb.Dataset(
            data[f"{kind}_x"].astype(np.float32),
            data[f"{kind}_y"],
            group=data[f"{kind}_group"],
            feature_name=names,
            reference=reference,
        )

    fit = dataset("train")
    params = {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [10],
        "num_leaves": num_leaves,
        "learning_rate": learning_rate,
        "min_data_in_leaf": 100,
        "feature_fraction": 0.8,
        "seed": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    booster = lgb.train(
        params,
        fit,
        rounds,
        valid_sets=[dataset("validation", fit)],
        callbacks=[lgb.early_stopping(20, verbose=False), lgb.log_evaluation(20)],
    )
    os.makedirs(model.path, exist_ok=True)
    booster.save_model(os.path.join(model.path, "model.txt"))
    model.framework = "lightgbm"
    model.metadata["trees"] = booster.best_iteration
    print(f"{booster.best_iteration} trees, {booster.best_score}")


@dsl.component(base_image=BASE_IMAGE, packages_to_install=PACKAGES)
def evaluate(
    candidates: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.Artifact],
) -> NamedTuple("Evaluation", [("better", bool), ("lower", float)]):
    """Rank all unseen suppliers for each buyer, and compare with popularity.

    Right answers are the suppliers the buyer liked in the test part. Buyers
    without any are left out. The interval is a bootstrap over buyers.
    """
    import json
    import os
    from collections import namedtuple

    import lightgbm as lgb
    import numpy as np

    top, draws = 10, 2000
    booster = lgb.Booster(model_file=os.path.join(model.path, "model.txt"))
    data = np.load(candidates.path)
    pairs, owns = data["pairs"], data["owns"]
    seen, wanted, popularity = data["seen"], data["wanted"], data["popularity"]
    discount = 1 / np.log2(np.arange(2, top + 2))

    def quality(scores, allowed, right):
        best = allowed[np.argsort(-scores, kind="stable")[:top]]
        hits = right[best]
        ideal = discount[: min(top, right.sum())].sum()
        return (hits * discount[: len(hits)]).sum() / ideal, float(hits.any())

    ranked, baseline = [], []
    judged = np.flatnonzero((wanted & ~seen).any(1))
    for at in range(0, len(judged), 50):
        chunk = judged[at : at + 50]
        rows = [
            np.hstack([pairs[b][~seen[b]], np.tile(owns[b], ((~seen[b]).sum(), 1))])
            for b in chunk
        ]
        scores = booster.predict(np.concatenate(rows).astype(np.float32))
        ends = np.cumsum([len(r) for r in rows])[:-1]
        for buyer, score in zip(chunk, np.split(scores, ends)):
            allowed = np.flatnonzero(~seen[buyer])
            ranked.append(quality(score, allowed, wanted[buyer]))
            baseline.append(quality(popularity[allowed], allowed, wanted[buyer]))
    ranked, baseline = np.array(ranked), np.array(baseline)
    difference = ranked[:, 0] - baseline[:, 0]
    drawn = np.random.default_rng(0).integers(
        0, len(difference), (draws, len(difference))
    )
    lower, upper = np.percentile(difference[drawn].mean(1), [2.5, 97.5])
    result = {
        "buyers": len(ranked),
        "ndcg_at_10": float(ranked[:, 0].mean()),
        "hit_rate_at_10": float(ranked[:, 1].mean()),
        "popularity_ndcg_at_10": float(baseline[:, 0].mean()),
        "popularity_hit_rate_at_10": float(baseline[:, 1].mean()),
        "difference_lower": float(lower),
        "difference_upper": float(upper),
    }
    for name, value in result.items():
        metrics.log_metric(name, value)
    with open(report.path, "w") as f:
        json.dump(result, f)
    print(json.dumps(result, indent=1))
    evaluation = namedtuple("Evaluation", ["better", "lower"])
    return evaluation(bool(lower > 0), float(lower))


@dsl.component(base_image=BASE_IMAGE, packages_to_install=PACKAGES)
def publish(
    model: dsl.Input[dsl.Model],
    report: dsl.Input[dsl.Artifact],
    published: dsl.Output[dsl.Model],
) -> None:
    """Put a model that passed, with its metrics, where it may be uploaded from."""
    import json
    import os
    import shutil

    os.makedirs(published.path, exist_ok=True)
    shutil.copy(os.path.join(model.path, "model.txt"), published.path)
    shutil.copy(report.path, os.path.join(published.path, "metrics.json"))
    published.framework = "lightgbm"
    with open(report.path) as f:
        published.metadata.update(json.load(f))


def train_pipeline(describe: Any = features) -> Any:
    """The pipeline with one of the features steps."""

    @dsl.pipeline(name="train-supplier-recommendation")
    def train_pipeline(
        orders_uri: str,
        positive: float = 4.0,
        test_size: int = 10,
        validation_size: int = 10,
        num_leaves: int = 15,
        learning_rate: float = 0.1,
        rounds: int = 150,
    ) -> None:
        """From an order history to a model that beat popularity."""
        orders = dsl.importer(
            artifact_uri=orders_uri, artifact_class=dsl.Dataset, reimport=False
        )
        parts = split(
            orders=orders.output, test_size=test_size, validation_size=validation_size
        )
        described = describe(
            orders=parts.outputs["parts"], purpose="train", positive=positive
        )
        trained = train(
            examples=described.outputs["examples"],
            num_leaves=num_leaves,
            learning_rate=learning_rate,
            rounds=rounds,
        )
        evaluated = evaluate(
            candidates=described.outputs["candidates"], model=trained.outputs["model"]
        )
        with dsl.If(evaluated.outputs["better"] == True, name="better than popularity"):
            publish(model=trained.outputs["model"], report=evaluated.outputs["report"])

    return train_pipeline
