"""How often the other families' drawing of the same thing is found, and the page of it.

A query is a drawing whose concept was held out from training and is drawn by another
family too; its own family is denied. It is a hit if one of the ten found shows the same
concept. Raw pixels are the same bitmaps that the network is given, all compared.
"""

import base64
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.cloud import aiplatform
from google.cloud.aiplatform.matching_engine.matching_engine_index_endpoint import (
    Namespace,
)

import page
import similar

TOP = 10
AT_ONCE = 100  # queries of a request
SHOWN = 12  # queries on the page


def units(rows: list[Any]) -> np.ndarray:
    """Vectors of length 1, so that products are cosines."""
    matrix = np.array(rows, np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


class Known:
    """All drawings: what they show, their pixels, their vectors."""

    def __init__(
        self,
        bitmaps: list[dict[str, Any]],
        labels: list[dict[str, Any]],
        vectors: dict[str, list[float]],
    ) -> None:
        self.ids = [b["id"] for b in bitmaps]
        self.row = {id_: i for i, id_ in enumerate(self.ids)}
        self.svg = {b["id"]: b["svg"] for b in bitmaps}
        self.families = np.array([b["family"] for b in bitmaps])
        label = {one["id"]: one for one in labels}
        self.concept = {id_: label[id_]["concept"] for id_ in self.ids}
        self.queries = [
            i for i in self.ids if label[i]["held_out"] and label[i]["elsewhere"]
        ]
        self.pixels = units(
            [
                np.frombuffer(base64.b64decode(b["pixels"]["b64"]), np.uint8)
                for b in bitmaps
            ]
        )
        self.vectors = units([vectors[id_] for id_ in self.ids])

    def nearest(self, space: np.ndarray, queries: list[str]) -> list[list[str]]:
        """The nearest of other families, by comparing with all."""
        rows = [self.row[query] for query in queries]
        alike = space[rows] @ space.T
        alike[self.families[rows][:, None] == self.families] = -np.inf
        best = np.argpartition(-alike, TOP, axis=1)[:, :TOP]
        order = np.argsort(-np.take_along_axis(alike, best, 1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, 1)
        return [[self.ids[i] for i in row] for row in best]

    def hit(self, query: str, found: list[str]) -> bool:
        """Whether something found shows what the query shows."""
        return any(self.concept[f] == self.concept[query] for f in found)


@dataclass
class Result:
    """Shares of queries, and what was found for each."""

    hit: float
    raw: float
    recall: float
    found: dict[str, list[str]]
    by_pixels: dict[str, list[str]]

    @property
    def queries(self) -> int:
        """How many were asked."""
        return len(self.found)


def family(id_: str) -> str:
    """The family of a drawing."""
    return id_.partition("/")[0]


def requests(queries: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Queries of one family at a time: a filter is that of a whole request."""
    for one in sorted({family(q) for q in queries}):
        mine = [q for q in queries if family(q) == one]
        for at in range(0, len(mine), AT_ONCE):
            yield one, mine[at : at + AT_ONCE]


def compare(index: aiplatform.MatchingEngineIndexEndpoint, known: Known) -> Result:
    """Ask the index about all held-out drawings, by their ids, and compare."""
    found: dict[str, list[str]] = {}
    by_pixels: dict[str, list[str]] = {}
    exact = 0
    for own, queries in requests(known.queries):
        answers = index.find_neighbors(
            deployed_index_id=similar.DEPLOYED,
            embedding_ids=queries,
            num_neighbors=TOP,
            filter=[Namespace("family", [], [own])],
        )
        got = [[n.id for n in neighbors] for neighbors in answers]
        found.update(zip(queries, got, strict=True))
        by_pixels.update(
            zip(queries, known.nearest(known.pixels, queries), strict=True)
        )
        best = known.nearest(known.vectors, queries)
        exact += sum(len(set(a) & set(b)) for a, b in zip(got, best, strict=True))
    count = len(found)
    return Result(
        hit=sum(known.hit(q, f) for q, f in found.items()) / count,
        raw=sum(known.hit(q, f) for q, f in by_pixels.items()) / count,
        recall=exact / (TOP * count),
        found=found,
        by_pixels=by_pixels,
    )


class Report:
    """What is on the page."""

    def __init__(self, search: similar.Search, known: Known, result: Result) -> None:
        self.search, self.known, self.result = search, known, result

    def tiles(self, ids: list[str], like: str = "") -> list[page.Tile]:
        """Drawings; those that show what another one shows are hits."""
        known, wanted = self.known, self.known.concept.get(like)
        return [page.Tile(i, known.svg[i], known.concept[i] == wanted) for i in ids]

    def row(self, label: str, what: str, **filters: Any) -> page.Row:
        """What a search finds."""
        found = self.search.like(what, TOP, **filters)
        return page.Row(label, self.tiles([f.id for f in found], what))

    def uploaded(self, drawing: Path) -> page.Block:
        """An own drawing: all families, and at most three drawings of each."""
        rows = [
            self.row("all families", str(drawing)),
            self.row("at most 3 of a family", str(drawing), of_each=3),
        ]
        own = page.Tile(drawing.name, drawing.read_text())
        return page.Block(own, "uploaded", rows)

    def by_id(self, query: str) -> page.Block:
        """One of the index, with filters."""
        own = family(query)
        others = [f for f in sorted(set(self.known.families)) if f != own]
        rows = [self.row("all families", query)]
        rows.append(self.row(f"without {own}", query, without=[own]))
        rows += [self.row(f"only {f}", query, only=[f]) for f in others]
        return page.Block(page.Tile(query, self.known.svg[query]), "in the index", rows)

    def held_out(self, query: str) -> page.Block:
        """A query of the comparison."""
        rows = [
            page.Row("by the network", self.tiles(self.result.found[query], query)),
            page.Row("by raw pixels", self.tiles(self.result.by_pixels[query], query)),
        ]
        says = f"shows: {self.known.concept[query]}"
        return page.Block(page.Tile(query, self.known.svg[query]), says, rows)

    def figures(self) -> list[str]:
        """The numbers at the top."""
        result, counts = self.result, Counter(self.known.families)
        families = ", ".join(f"{n:,} of {f}" for f, n in sorted(counts.items()))
        return [
            page.figure(
                f"{result.hit:.1%}", "hit rate@10 of the network", result.hit, best=True
            ),
            page.figure(f"{result.raw:.1%}", "hit rate@10 of raw pixels", result.raw),
            page.figure(f"{result.queries:,}", "queries, whose names were held out"),
            page.figure(f"{len(self.known.ids):,}", f"drawings: {families}"),
        ]

    def html(self, drawing: Path) -> str:
        """The page."""
        queries = self.known.queries
        every = max(len(queries) // SHOWN, 1)
        spaced = queries[every // 2 :: every][:SHOWN]
        one = SOME if SOME in self.known.row else spaced[0]
        sections = [
            page.Section(
                "Similar to an uploaded drawing", UPLOADED, [self.uploaded(drawing)]
            ),
            page.Section("Similar to a drawing of the index", BY_ID, [self.by_id(one)]),
            page.Section(
                "Names that the network has not seen",
                HELD_OUT,
                [self.held_out(q) for q in spaced],
            ),
        ]
        return page.page("Similar drawings", TEXT, self.figures(), sections, FOOT)


SOME = "tabler/umbrella-outline"
TEXT = (
    "Icon families draw the same things in their own styles. From names that families "
    "share, a small network learned to put drawings of one thing side by side. A hit: "
    "another family's drawing of the same thing is among the ten that are found."
)
UPLOADED = "Rendered, embedded by the endpoint, and looked for in the index."
BY_ID = (
    "Named by its id: nothing is rendered or embedded. Filters leave out families, or "
    "leave only one. Green: the same thing, by name."
)
HELD_OUT = (
    "Evenly spaced among all queries, good ones and bad ones. The query's own family is "
    "left out. Green: the same thing, by name."
)
FOOT = (
    "Drawings: bootstrap-icons (MIT), lucide-static (ISC), @mdi/svg (Apache-2.0), "
    "@tabler/icons (MIT). Some are trademarks of their owners."
)
