"""The pipeline that test/debug/loop.py debugs.

Each step appends a line `STEP MILLISECONDS` to a book when its own code ends, however
it ends: how often programs ran, and for how long, is read from there and not from the
platform.
"""

from kfp import dsl


@dsl.component(base_image="python:3.11")
def gather(work_ms: int, book: str, table: dsl.Output[dsl.Dataset]):
    import time

    began = time.monotonic()
    time.sleep(work_ms / 1000)
    with open(table.path, "w") as f:
        f.write("acme,3,4,8\nbolt,,6,2\ncask,5,5,5\n")
    with open(book, "a") as f:
        f.write(f"gather {round((time.monotonic() - began) * 1000)}\n")


@dsl.component(base_image="python:3.11", packages_to_install=["debugpy==1.8.14"])
def clean(
    work_ms: int,
    book: str,
    table: dsl.Input[dsl.Dataset],
    rows: dsl.Output[dsl.Dataset],
) -> int:
    import time

    began = time.monotonic()
    try:
        time.sleep(work_ms / 1000)
        kept = []
        with open(table.path) as f:
            for line in f:
                supplier, *days = line.strip().split(",")
                kept.append((supplier, [int(d) for d in days]))
        with open(rows.path, "w") as f:
            for supplier, days in kept:
                f.write(",".join([supplier, *map(str, days)]) + "\n")
        return len(kept)
    finally:
        with open(book, "a") as f:
            f.write(f"clean {round((time.monotonic() - began) * 1000)}\n")


@dsl.component(base_image="python:3.11")
def report(work_ms: int, book: str, scores: dsl.Input[dsl.Artifact], count: int) -> str:
    import time

    began = time.monotonic()
    time.sleep(work_ms / 1000)
    with open(scores.path) as f:
        lines = f.read().split()
    with open(book, "a") as f:
        f.write(f"report {round((time.monotonic() - began) * 1000)}\n")
    return f"{count} suppliers: {' '.join(lines)}"


def pipeline(score):
    """The pipeline around the step in Rust; score is None where there is none."""

    @dsl.pipeline(name="delays")
    def delays(book: str, gather_ms: int = 1000, work_ms: int = 200):
        gathered = gather(work_ms=gather_ms, book=book)
        cleaned = clean(work_ms=work_ms, book=book, table=gathered.outputs["table"])
        scores = cleaned.outputs["rows"]
        if score is not None:
            scored = score(rows=scores, work_ms=work_ms, book=book)
            scored.set_env_variable("RUST_BACKTRACE", "1")
            scores = scored.outputs["scores"]
        report(
            work_ms=work_ms, book=book, scores=scores, count=cleaned.outputs["Output"]
        )

    return delays
