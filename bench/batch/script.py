"""What one writes instead: lines of JSON to a Parquet file of keys and predictions."""

import json
import multiprocessing
import sys

import lightgbm
import numpy
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

FOLDER, READER = sys.argv[1:3]
PROCESSES = 2
BLOCK = 20_000


def loads(part):
    """Half of the file, by json.loads."""
    model = lightgbm.Booster(model_file=f"{FOLDER}/model.txt")
    names = model.feature_name()
    keys, scores = [], []
    with open(f"{FOLDER}/in.jsonl", "rb") as lines:
        lines.seek(0, 2)
        size = lines.tell()
        begin, end = size * part // PROCESSES, size * (part + 1) // PROCESSES
        lines.seek(max(0, begin - 1))
        if begin:
            lines.readline()
        block = []
        while lines.tell() < end:
            row = json.loads(lines.readline())
            keys.append(row["id"])
            block.append([row[name] for name in names])
            if len(block) == BLOCK:
                scores.append(model.predict(numpy.array(block), num_threads=1))
                block = []
        if block:
            scores.append(model.predict(numpy.array(block), num_threads=1))
    return numpy.array(keys), numpy.concatenate(scores)


def main():
    if READER == "json.loads":
        with multiprocessing.Pool(PROCESSES) as pool:
            keys, scores = map(numpy.concatenate, zip(*pool.map(loads, range(PROCESSES))))
    else:
        model = lightgbm.Booster(model_file=f"{FOLDER}/model.txt")
        table = pa.json.read_json(f"{FOLDER}/in.jsonl")
        columns = [table[name].to_numpy() for name in model.feature_name()]
        scores = model.predict(numpy.column_stack(columns), num_threads=PROCESSES)
        keys = table["id"]
    pq.write_table(pa.table({"key": keys, "prediction": scores}), f"{FOLDER}/out.parquet")


if __name__ == "__main__":
    main()
