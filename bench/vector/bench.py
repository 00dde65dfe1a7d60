"""tategu's vector search beside its peers, in turns, on one core (see CONTRIBUTING.md).

Queries per second are of CPU time of the process that searches: on a machine that others use, wall time says
who else was there. Each figure is the least of all rounds (and the median beside it).
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

import data
import peers

RECALLS = (0.90, 0.95, 0.99)
GROUPS = ("hnswlib", "faiss", "usearch", "scann")


def recall(found, truth):
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist())]))


def at(points, wanted):
    """Queries per second where a curve of (recall, queries per second) crosses a recall."""
    hull = []  # only settings that no other one beats
    for r, q in sorted(points, reverse=True):
        if not hull or q > hull[-1][1]:
            hull.append((r, q))
    above = [p for p in hull if p[0] >= wanted]
    below = [p for p in hull if p[0] < wanted]
    if not above:
        return None
    (r1, q1) = above[-1]
    if not below:
        return q1
    (r0, q0) = below[0]
    f = (wanted - r0) / (r1 - r0)
    return float(np.exp(np.log(q0) * (1 - f) + np.log(q1) * f))


def compare(name, args, folder, scratch):
    base, queries, truth, cosine = data.make(name, folder)
    print(f"\n## {name}: {len(base)} x {base.shape[1]}, {'cosine' if cosine else 'squared L2'}", flush=True)
    libs = []

    def built(make):
        wall, cpu = time.perf_counter(), time.process_time()
        lib = make()
        cost = getattr(lib, "built", {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})
        print(f"built {lib.name}: {cost['cpu']:.1f} s CPU, {cost['wall']:.1f} s; {lib.size} bytes a vector", flush=True)
        libs.append(lib)
        return lib

    ours = built(lambda: peers.Tategu(args.tategu, folder / name, base, cosine, scratch))
    print("chosen:", json.dumps(ours.built["tuned"]), ours.built["stats"]["method"], ours.built["stats"]["kernel"])
    for make in peers.peers(base, queries, cosine, args.quick, args.peers.split(",")):
        try:
            lib = built(make)
        except Exception as e:  # a peer that does not run here is named, not hidden
            print(f"left out: {e}")
    ratios = {}
    for batch in (1, len(queries)):
        seen = {}
        for turn in range(args.rounds):
            order = libs if turn % 2 == 0 else libs[::-1]
            longest = max(len(l.settings) for l in libs)
            for i in range(longest):
                for lib in order:
                    if i >= len(lib.settings):
                        continue
                    points = seen.setdefault(lib.name, {})
                    p = points.get(i)
                    if p and p["recall"] < 0.85:  # nobody asks for these
                        continue
                    found, wall, cpu = lib.run(lib.settings[i], batch)
                    p = points.setdefault(i, {"recall": recall(found, truth), "cpu": [], "wall": []})
                    p["cpu"].append(cpu)
                    p["wall"].append(wall)
        ratios[batch] = table(seen, batch, len(queries))
        if args.curves:
            curves = {n: [(lib_setting(libs, n, i), round(p["recall"], 4), round(len(queries) / min(p["cpu"]))) for i, p in v.items()] for n, v in seen.items()}
            with open(args.curves, "a") as f:
                f.write(json.dumps({"set": name, "batch": batch, "curves": curves}) + "\n")
    ours.close()
    return ratios[1], ours.size


def lib_setting(libs, name, i):
    return next(l.settings[i] for l in libs if l.name == name)


def table(seen, batch, n):
    print(f"{batch} quer{'y' if batch == 1 else 'ies'} a call: queries per CPU second, best (median) at recall@10")
    best = {}
    for name, points in seen.items():
        cells = []
        for r in RECALLS:
            fast = at([(p["recall"], n / min(p["cpu"])) for p in points.values()], r)
            middle = at([(p["recall"], n / float(np.median(p["cpu"]))) for p in points.values()], r)
            cells.append(f"{r:.2f}: {fast:8.0f} ({middle:.0f})" if fast else f"{r:.2f}:        -")
            group = name.split()[0]
            if fast:
                best[group, r] = max(best.get((group, r), 0), fast)
        print(f"  {name:32}", "  ".join(cells), flush=True)
    out = {}
    for r in RECALLS:
        for g in GROUPS:
            ours, theirs = best.get(("tategu", r)), best.get((g, r))
            if ours is None:
                out[g, r] = 0.0
            elif theirs:
                out[g, r] = ours / theirs
    print("  ratios:", " ".join(f"{g}_{r:.2f}={v:.2f}x" for (g, r), v in sorted(out.items())), flush=True)
    return out


FILTERED = {"words-60k": True, "clusters128-60k": False}  # sets, and whether they are compared by cosine
METHODS = {"ivf": 3, "hnsw": 4}


def filtered(sets, args, scratch):
    """Recall and queries per second behind filters, against the exact search of what passes; gives the least recall."""
    least = 1.0
    for name in sets:
        data.make(name, pathlib.Path(args.data))
        stem = f"{args.data}/{name}"
        for method, number in METHODS.items():
            command = [args.tategu, "-base", f"{stem}.base", "-queries", f"{stem}.queries", "-segment", f"{scratch}/filtered", "-method", str(number), "-filters"]
            lines = subprocess.run(command + (["-cosine"] if FILTERED[name] else []), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
            cases = {}
            for r in map(json.loads, lines.splitlines()):
                cases.setdefault(r["filter"], []).append(r)
                least = min(least, r["recall"])
            shares = [f"{100 * r['share']:g} %" for r in next(iter(cases.values()))]
            print(f"\n## filters, {name}, {method}: recall@10, queries per CPU second (of which us to make the bitmap)")
            print("rows that pass   ", "".join(f"{s:>24}" for s in shares))
            for case, rs in cases.items():
                print(f"{case:17} ", "".join(f"{r['recall']:8.3f} {r['per_cpu']:7.0f} ({r['bitmap_us']:5.1f})" for r in rs), flush=True)
    return least


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tategu", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--sets", default="words-60k,words-341k,clusters128-60k,clusters768-20k")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--quick", action="store_true", help="one build of each peer")
    p.add_argument("--peers", default=",".join(GROUPS))
    p.add_argument("--filters", action="store_true", help="what filters cost and find, and nothing else")
    p.add_argument("--curves", help="file for all points")
    args = p.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    chosen = args.sets.split(",")
    filters = [s for s in FILTERED if s in chosen]
    if args.filters:
        if not filters:
            sys.exit(f"filters are measured on {', '.join(FILTERED)}, and SETS has none of them")
        with tempfile.TemporaryDirectory() as scratch:
            print(f"filter_recall_min={filtered(filters, args, scratch):.3f}")
        return
    macros = subprocess.run(["gcc", "-O3", "-march=native", "-dM", "-E", "-"], input="", capture_output=True, text=True).stdout
    has = [m for m in ("__AVX2__", "__FMA__", "__AVX512F__", "__AVX512VNNI__") if m in macros]
    print("hnswlib is built from source with -O3 -march=native, which is:", *has)
    peers.faiss.omp_set_num_threads(1)
    worst, size = {}, 0
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen:
            ratios, one = compare(name, args, pathlib.Path(args.data), scratch)
            size = max(size, one)
            for k, v in ratios.items():
                worst[k] = min(worst.get(k, 1e9), v)
        behind = f"filter_recall_min={filtered(filters, args, scratch):.3f} " if filters else ""
    label = {"faiss": "faiss_best"}
    print(behind + " ".join(f"{label.get(g, g)}_{r:.2f}={worst[g, r]:.2f}x" for g in GROUPS for r in RECALLS if (g, r) in worst), f"bytes_per_vector={size}")


if __name__ == "__main__":
    sys.exit(main())
