"""tategu and its peers behind one form: a name, settings to sweep, run(setting, batch) -> rows found.

Every peer has the parameters that its documentation recommends for this size, and where one build cannot be
best at all recalls, two of them; what counts at a recall is the best that any of them reaches.
"""
import json
import os
import subprocess
import time

import faiss
import hnswlib
import numpy as np
import scann
from usearch.index import Index

K = 10
BEAMS = [10, 14, 20, 30, 45, 70, 100, 150, 220, 320, 480, 700]


def each(queries, batch, search):
    """Calls search with `batch` queries a call."""
    if batch == 1:
        return np.stack([np.asarray(search(queries[i : i + 1])).reshape(-1) for i in range(len(queries))])
    return np.vstack([search(queries[i : i + batch]) for i in range(0, len(queries), batch)])


class Python:
    """A library in this process: its CPU time is the process's."""

    def __init__(self, name, settings, queries, call, size):
        self.name, self.settings, self.queries, self.call, self.size = name, settings, queries, call, size

    def run(self, setting, batch):
        search = self.call(setting)
        wall, cpu = time.perf_counter(), time.process_time()
        found = each(self.queries, batch, search)
        return found, time.perf_counter() - wall, time.process_time() - cpu


def hnsw(base, queries, cosine, m):
    p = hnswlib.Index("ip" if cosine else "l2", base.shape[1])
    p.init_index(len(base), M=m, ef_construction=200, random_seed=1)
    p.set_num_threads(1)
    p.add_items(base, num_threads=1)

    def call(ef):
        p.set_ef(ef)
        return lambda q: p.knn_query(q, k=K, num_threads=1)[0]

    return Python(f"hnswlib M={m}", BEAMS, queries, call, base.shape[1] * 4 + 8 * m + 12)


def faiss_hnsw(base, queries, cosine, m):
    p = faiss.IndexHNSWFlat(base.shape[1], m, faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2)
    p.hnsw.efConstruction = 200
    p.add(base)

    def call(ef):
        p.hnsw.efSearch = ef
        return lambda q: p.search(q, K)[1]

    return Python(f"faiss HNSW{m}", BEAMS, queries, call, base.shape[1] * 4 + 8 * m + 8)


def faiss_ivf(base, queries, cosine, leaves):
    d = base.shape[1]
    p = faiss.index_factory(d, f"IVF{leaves},PQ{d // 2}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2)
    p.train(base)
    p.add(base)
    inner = faiss.downcast_index(p.base_index)

    def call(setting):
        inner.nprobe, p.k_factor = setting
        return lambda q: p.search(q, K)[1]

    settings = [(max(1, int(f * leaves)), r) for f in (0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.3, 0.45, 0.65, 1) for r in (4, 10, 25, 60)]
    return Python(f"faiss IVF{leaves},PQ{d // 2}x4fs,RFlat", settings, queries, call, d * 4 + d // 4 + 8)


def usearch(base, queries, cosine, dtype):
    p = Index(ndim=base.shape[1], metric="ip" if cosine else "l2sq", dtype=dtype, connectivity=16, expansion_add=128)
    p.add(np.arange(len(base)), base, threads=1)

    def call(ef):
        p.expansion_search = ef
        return lambda q: p.search(q if len(q) > 1 else q[0], K, threads=1).keys

    return Python(f"usearch {dtype}", BEAMS, queries, call, p.memory_usage // len(base))


def scann_ah(base, queries, cosine, leaves):
    p = (
        scann.scann_ops_pybind.builder(base, K, "dot_product" if cosine else "squared_l2")
        .set_n_training_threads(1)
        .tree(leaves, 10, training_sample_size=min(len(base), 250_000))
        .score_ah(2, anisotropic_quantization_threshold=0.2 if cosine else float("nan"))
        .reorder(100)
        .build()
    )

    def call(setting):
        l, r = setting
        return lambda q: p.search(q[0], K, r, l)[0] if len(q) == 1 else p.search_batched(q, K, r, l)[0]

    settings = [(max(1, int(f * leaves)), r) for f in (0.01, 0.02, 0.035, 0.06, 0.1, 0.16, 0.25, 0.4, 0.6, 0.8, 1) for r in (25, 50, 100, 200)]
    return Python(f"scann {leaves} leaves", settings, queries, call, base.shape[1] * 4 + base.shape[1] // 4 + 8)


class Tategu:
    """The program of bench/vector, which answers lines; its CPU time is its own."""

    name = "tategu"

    def __init__(self, program, stem, base, cosine, folder, extra=()):
        self.segment, self.out = f"{folder}/segment", f"{folder}/found"
        command = [program, "-base", f"{stem}.base", "-queries", f"{stem}.queries", "-segment", self.segment, *extra]
        self.process = subprocess.Popen(command + (["-cosine"] if cosine else []), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.built = json.loads(self.process.stdout.readline())
        self.size = os.path.getsize(self.segment) // len(base)
        if self.built["stats"]["method"] == "hnsw":
            self.settings = [(0, c, b) for b in BEAMS for c in (15, 30, 60) if c <= b or b == BEAMS[0]]
        else:
            self.settings = [(f, c, 0) for f in (0.005, 0.01, 0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.22, 0.33, 0.5, 0.75, 1) for c in (20, 40, 100)]

    def run(self, setting, batch):
        fraction, candidates, beam = setting
        line = {"fraction": fraction, "candidates": candidates, "beam": beam, "batch": batch, "k": K, "out": self.out}
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return np.fromfile(self.out, dtype=np.uint32).reshape(-1, K), answer["wall"], answer["cpu"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def peers(base, queries, cosine, quick, only):
    """Builds of all peers, each as a function; `only` are names of libraries."""
    few, many = (256, 768) if len(base) < 150_000 else (600, 2000)
    out = [
        ("hnswlib", lambda: hnsw(base, queries, cosine, 16)),
        ("faiss", lambda: faiss_ivf(base, queries, cosine, few)),
        ("scann", lambda: scann_ah(base, queries, cosine, few)),
        ("usearch", lambda: usearch(base, queries, cosine, "f32")),
    ]
    if not quick:
        out += [
            ("hnswlib", lambda: hnsw(base, queries, cosine, 32)),
            ("faiss", lambda: faiss_hnsw(base, queries, cosine, 16)),
            ("faiss", lambda: faiss_ivf(base, queries, cosine, many)),
            ("usearch", lambda: usearch(base, queries, cosine, "i8")),
            ("scann", lambda: scann_ah(base, queries, cosine, many)),
        ]
    return [make for name, make in out if name in only]
