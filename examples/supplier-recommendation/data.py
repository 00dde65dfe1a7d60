"""The order history: MovieLens-100k as orders, or any CSV with these columns.

    buyer, supplier   ids
    outcome           how it went, larger is better (a rating, say)
    time              when, seconds
    buyer_*           features of the buyer: numbers or texts
    supplier_*        features of the supplier: numbers, or texts of tags between
                      spaces; supplier_title is only shown

The default input is what the package recbole ships: people who rate films stand
for buyers and suppliers. Only that one wheel is fetched, without what it needs.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd

WHEEL = "recbole==1.2.1"
FOLDER = "recbole/dataset_example/ml-100k"
NEEDED = ["buyer", "supplier", "outcome", "time"]


def cache_folder() -> Path:
    """Where the wheel is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "supplier-recommendation"


def fetch_movielens(cache: Path) -> Path:
    """Give the folder of the MovieLens files, fetching the wheel once."""
    folder = cache / "ml-100k"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    fetched = cache / f"fetched-{os.getpid()}"
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--no-deps"]
        command += ["--python", sys.executable, "--target", str(fetched), WHEEL]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--dest", str(fetched), WHEEL]
    try:
        subprocess.run(command, check=True)
        for wheel in fetched.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(fetched)
        # A rename, so that a run that is stopped half-way leaves nothing behind.
        if not folder.exists():
            (fetched / FOLDER).rename(folder)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    return folder


def read_table(folder: Path, kind: str) -> pd.DataFrame:
    """Read one tab-separated file, without the types in its header."""
    path = folder / f"ml-100k.{kind}"
    table = pd.read_csv(path, sep="\t", quoting=3, dtype=str)
    return table.rename(columns=lambda name: name.split(":")[0])


def movielens_orders(folder: Path) -> pd.DataFrame:
    """MovieLens as an order history."""
    orders = read_table(folder, "inter").rename(
        columns={
            "user_id": "buyer",
            "item_id": "supplier",
            "rating": "outcome",
            "timestamp": "time",
        }
    )
    buyers = read_table(folder, "user").rename(
        columns={
            "user_id": "buyer",
            "age": "buyer_age",
            "gender": "buyer_gender",
            "occupation": "buyer_occupation",
        }
    )
    suppliers = read_table(folder, "item").rename(
        columns={
            "item_id": "supplier",
            "movie_title": "supplier_title",
            "release_year": "supplier_year",
            "class": "supplier_genres",
        }
    )
    year = pd.to_numeric(suppliers["supplier_year"], errors="coerce")
    suppliers["supplier_year"] = year.fillna(year.median()).astype(int)
    table = orders.merge(buyers.drop(columns="zip_code"), on="buyer")
    return table.merge(suppliers, on="supplier")


def check_columns(path: Path) -> None:
    """Refuse a CSV that lacks a documented column."""
    present = pd.read_csv(path, nrows=1).columns
    missing = [name for name in NEEDED if name not in present]
    if missing:
        raise SystemExit(f"{path} has no column {', '.join(missing)}; see data.py")


def orders_csv(given: str | None, cache: Path) -> Path:
    """Give the path of the order history."""
    if given:
        check_columns(Path(given))
        return Path(given)
    folder = fetch_movielens(cache)
    path = folder / "orders.csv"
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        movielens_orders(folder).to_csv(partial, index=False)
        partial.rename(path)
    return path


def digest(path: Path) -> str:
    """A short name for the content, so that a changed table is a new object."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def some_buyers(path: Path, count: int) -> list[str]:
    """Buyers evenly spread over the table."""
    buyers = pd.read_csv(path, usecols=["buyer"], dtype=str)["buyer"].unique()
    step = max(len(buyers) // count, 1)
    return [str(buyer) for buyer in buyers[::step][:count]]
