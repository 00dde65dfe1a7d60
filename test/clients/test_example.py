"""The example's own promises: no leakage, and the real order history's shape."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/supplier-recommendation"


@pytest.fixture
def pipeline(monkeypatch):
    """The example's pipeline module."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import pipeline

    yield pipeline
    sys.modules.pop("pipeline", None)


@pytest.fixture
def orders():
    """A small order history, a day between two orders of a buyer."""
    rng = np.random.default_rng(1)
    rows = []
    for buyer in range(20):
        chosen = rng.choice(60, 35, replace=False)
        for day, supplier in enumerate(chosen):
            when = 86_400 * (day + buyer) + int(rng.integers(0, 3600))
            rows.append((f"b{buyer}", f"s{supplier}", rng.integers(1, 6), when))
    table = pd.DataFrame(rows, columns=["buyer", "supplier", "outcome", "time"])
    table["buyer_age"] = table["buyer"].str[1:].astype(int) + 20
    table["supplier_tags"] = "tag" + (table["supplier"].str[1:].astype(int) % 5).astype(
        str
    )
    return table.sample(frac=1, random_state=2)


def artifact(path):
    """What a component gets as an artifact."""
    return SimpleNamespace(path=str(path), metadata={})


def described(pipeline, table, folder):
    """Run split and features on a table; give parts, examples and candidates."""
    folder.mkdir()
    table.to_csv(folder / "orders.csv", index=False)
    out = {name: artifact(folder / name) for name in ("parts", "examples", "pairs")}
    pipeline.split.python_func(
        orders=artifact(folder / "orders.csv"),
        test_size=10,
        validation_size=10,
        parts=out["parts"],
    )
    pipeline.features.python_func(
        orders=out["parts"],
        purpose="train",
        positive=4.0,
        examples=out["examples"],
        candidates=out["pairs"],
    )
    return (
        pd.read_csv(out["parts"].path),
        np.load(out["examples"].path),
        np.load(out["pairs"].path),
    )


def test_split_by_time(pipeline, orders, tmp_path):
    parts, _, _ = described(pipeline, orders, tmp_path / "a")
    for _, mine in parts.groupby("buyer"):
        by_part = mine.groupby("part")["time"]
        assert by_part.size().to_dict() == {"test": 10, "train": 15, "validation": 10}
        ends, starts = by_part.max(), by_part.min()
        assert ends["train"] < starts["validation"]
        assert ends["validation"] < starts["test"]


def test_outcomes_of_the_test_part_change_no_feature(pipeline, orders, tmp_path):
    parts, before, candidates = described(pipeline, orders, tmp_path / "a")
    changed = parts.drop(columns="part")
    changed.loc[parts["part"] == "test", "outcome"] = 5
    _, after, others = described(pipeline, changed, tmp_path / "b")
    for name in before.files:
        assert np.array_equal(before[name], after[name]), name
    for name in ("pairs", "owns", "seen", "popularity"):
        assert np.array_equal(candidates[name], others[name]), name
    assert not np.array_equal(candidates["wanted"], others["wanted"])


def test_later_orders_change_no_feature(pipeline, orders, tmp_path):
    parts, _, candidates = described(pipeline, orders, tmp_path / "a")
    first_buyer = list(candidates["buyers"]).index("b0")
    start = parts[(parts["buyer"] == "b0") & (parts["part"] == "test")]["time"].min()
    changed = parts.drop(columns="part")
    # The day itself still counts as later: statistics are of the evening before.
    changed.loc[changed["time"] >= start - start % 86_400, "outcome"] = 1
    _, _, others = described(pipeline, changed, tmp_path / "b")
    for name in ("pairs", "owns"):
        before, after = candidates[name][first_buyer], others[name][first_buyer]
        assert np.array_equal(before, after), name


def test_what_was_ordered_is_no_candidate(pipeline, orders, tmp_path):
    parts, _, candidates = described(pipeline, orders, tmp_path / "a")
    suppliers = list(candidates["suppliers"])
    for row, buyer in enumerate(candidates["buyers"]):
        mine = parts[parts["buyer"] == buyer]
        early = mine[mine["part"] != "test"]["supplier"]
        assert {suppliers[k] for k in np.flatnonzero(candidates["seen"][row])} == set(
            early
        )


@pytest.fixture(scope="module")
def program():
    """The features step in Rust, built by cargo."""
    # Clients have an environment of their own; tools are found by pytest's.
    started = dict(
        entry.partition("=")[::2]
        for entry in Path("/proc/self/environ").read_text().split("\0")
        if "=" in entry
    )
    cargo = shutil.which("cargo", path=started.get("PATH"))
    if cargo is None:
        pytest.skip("cargo is not installed")
    folder = EXAMPLE.parent / "rust-features"
    build = [cargo, "build", "--quiet", "--release", "--locked", "--offline"]
    build += ["--target-dir", "target"]
    subprocess.run(build, cwd=folder, env=started, check=True)
    return folder / "target/release/rust-features"


@pytest.mark.parametrize("purpose", ["train", "predict"])
def test_features_in_rust_are_those_in_python(
    pipeline, program, orders, tmp_path, purpose
):
    orders.loc[orders["supplier"] == "s7", "supplier_tags"] = 'tag1 "x, y"'
    orders.loc[orders["supplier"] == "s9", "supplier_tags"] = None
    orders["supplier_year"] = 1990 + orders["supplier"].str[1:].astype(int) % 7
    orders.loc[orders["supplier"] == "s8", "supplier_year"] = None
    jobs = {"b1": "cook", "b12": "cook", "b7": "Künstler"}
    orders["buyer_job"] = orders["buyer"].map(jobs)
    parts, _, _ = described(pipeline, orders, tmp_path / "split")
    table = tmp_path / "parts.csv"
    parts.to_csv(table, index=False)
    names = ("examples", "candidates")
    python, rust = ({n: tmp_path / f"{of}-{n}" for n in names} for of in ("py", "rs"))
    pipeline.features.python_func(
        orders=artifact(table),
        purpose=purpose,
        positive=4.0,
        **{name: artifact(path) for name, path in python.items()},
    )
    command = [program, "--orders", table, "--purpose", purpose, "--positive", "4.0"]
    for name, path in rust.items():
        command += [f"--{name}", path]
    subprocess.run(command, check=True)
    for name in names:
        want, got = np.load(python[name]), np.load(rust[name])
        assert want.files == got.files
        for key in want.files:
            a, b = want[key], got[key]
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            if a.dtype != np.float16:
                assert np.array_equal(a, b), key
                continue
            # Sums in another order may be rounded to the next half-precision number.
            assert np.allclose(a.astype(float), b.astype(float), rtol=2**-10), key
            assert (a != b).mean() < 0.001, key
    if purpose == "train":
        groups = np.load(rust["examples"])["train_group"]
        assert len(groups) and groups.min() > 20


def test_rust_says_what_is_wrong_with_a_table(program, tmp_path):
    table = tmp_path / "orders.csv"
    table.write_text("buyer,supplier,outcome,time\na,x,good,1\n")
    command = [program, "--orders", table, "--purpose", "train", "--positive", "4"]
    command += ["--examples", tmp_path / "e", "--candidates", tmp_path / "c"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'row 1: "good" is no outcome' in done.stderr
    assert not (tmp_path / "c").exists()
