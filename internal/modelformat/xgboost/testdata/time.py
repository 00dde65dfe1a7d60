"""Prints how many nanoseconds Booster.inplace_predict takes with one thread, the best of 5 rounds.

usage: time.py MODEL ROWS_FILE COUNT
"""

import sys
import time

import numpy as np
import xgboost as xgb


def main():
    model, rows_file, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(rows_file) as f:
        rows = [[float.fromhex(v) for v in line.split()] for line in f]
    rows = np.resize(np.array(rows, dtype=np.float32), (count, len(rows[0])))
    booster = xgb.Booster(model_file=model, params=dict(nthread=1))
    calls = 1
    best = float("inf")
    while True:
        start = time.perf_counter_ns()
        for _ in range(calls):
            booster.inplace_predict(rows, validate_features=False)
        spent = time.perf_counter_ns() - start
        if spent > 5e7:
            break
        calls *= 2
    for _ in range(5):
        start = time.perf_counter_ns()
        for _ in range(calls):
            booster.inplace_predict(rows, validate_features=False)
        best = min(best, (time.perf_counter_ns() - start) / calls)
    print(best)


if __name__ == "__main__":
    main()
