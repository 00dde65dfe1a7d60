"""Checks our Parquet file and writes others with the reference library.

The rows of the others are printed as JSON.
"""

import datetime
import decimal
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq

folder = sys.argv[1]
ours = pq.read_table(f"{folder}/ours.parquet").to_pydict()
assert ours["a"][9] == "row 9", ours
assert ours["c"] == list(range(10)), ours
assert ours["d"][:3] == [0.5, None, -1e300], ours
assert ours["e"][:2] == [[1.0], [1.0, None, 3.0]], ours
assert json.loads(ours["b"][3]) == {"i": 3}, ours

day, at = datetime.date(2026, 3, 1), datetime.datetime(2026, 3, 1, 2, 3, 4, 500000)
columns = {
    "text": pa.array(["a", 'ü"\n', None] * 50),
    "small": pa.array([1, None, -3] * 50, pa.int32()),
    "unsigned": pa.array([2**64 - 1, 0, None] * 50, pa.uint64()),
    "double": pa.array([0.1, None, -2.5] * 50),
    "single": pa.array([0.5, None, 1.5] * 50, pa.float32()),
    "yes": pa.array([True, None, False] * 50),
    "list": pa.array([[1.5, None], [], None] * 50, pa.list_(pa.float64())),
    "day": pa.array([day, None, day] * 50),
    "at": pa.array([at, None, at] * 50, pa.timestamp("us")),
    "price": pa.array([decimal.Decimal("-1.25"), None, decimal.Decimal("10.00")] * 50, pa.decimal128(9, 2)),
    "bytes": pa.array([b"\x00\xff", None, b""] * 50, pa.binary()),
}
table = pa.table(columns)
variants = {
    "snappy": {"compression": "snappy"},
    "zstd2": {"compression": "zstd", "data_page_version": "2.0"},
    "gzip": {"compression": "gzip", "use_dictionary": False},
    "brotli": {"compression": "brotli"},
    "lz4": {"compression": "lz4", "row_group_size": 40},
    "plain": {"compression": "none", "data_page_size": 100},
    "delta": {"use_dictionary": False, "column_encoding": {"small": "DELTA_BINARY_PACKED", "text": "DELTA_BYTE_ARRAY", "double": "BYTE_STREAM_SPLIT"}},
}
for name, options in variants.items():
    pq.write_table(table, f"{folder}/theirs-{name}.parquet", **options)


def shown(value):
    if isinstance(value, datetime.datetime):
        return value.isoformat().replace(".500000", ".5") + "Z"
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode()
    return value


rows = [{k: shown(v) for k, v in row.items()} for row in table.to_pylist()]
print(json.dumps(rows))
