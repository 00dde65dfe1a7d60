"""Asks for similar drawings, once run.py has built the index.

    python similar.py sketch.svg                    # like a drawing of yours
    python similar.py lucide/umbrella --without lucide
    python similar.py tabler/fish --only bootstrap mdi

A drawing of yours is rendered, embedded by the endpoint, and looked for in the index;
one of the index is named by its id, and nothing has to be rendered or embedded.
"""

import argparse
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.api_core.exceptions import NotFound
from google.cloud import aiplatform
from google.cloud.aiplatform.matching_engine.matching_engine_index_endpoint import (
    Namespace,
)

import drawings

NAME = "similar-drawings"
DEPLOYED = "similar_drawings"


@dataclass
class Found:
    """A neighbour."""

    id: str
    distance: float
    svg: str


class Search:
    """The endpoint that embeds and the index that finds, by their names."""

    def __init__(self) -> None:
        named = f'display_name="{NAME}"'
        endpoints = aiplatform.Endpoint.list(filter=named)
        indexes = aiplatform.MatchingEngineIndexEndpoint.list(filter=named)
        if not endpoints or not indexes:
            raise drawings.Missing("there is no index yet: python run.py makes it")
        self.endpoint = endpoints[0]
        self.index = aiplatform.MatchingEngineIndexEndpoint(indexes[0].resource_name)

    def find(self, count: int, filters: "Filters", **query: Any) -> list[Found]:
        """Ask the index."""
        (neighbors,) = self.index.find_neighbors(
            deployed_index_id=DEPLOYED,
            num_neighbors=count,
            filter=filters.namespaces(),
            per_crowding_attribute_neighbor_count=filters.of_each,
            return_full_datapoint=True,
            **query,
        )
        return [
            Found(n.id, n.distance or 0.0, n.embedding_metadata["svg"])
            for n in neighbors
        ]

    def like(self, what: str, count: int = 10, **filters: Any) -> list[Found]:
        """Drawings like a file (NAME.svg), or like one of the index (FAMILY/NAME)."""
        chosen = Filters(**filters)
        if not what.endswith(".svg"):
            found = self.find(count + 1, chosen, embedding_ids=[what])
            return [f for f in found if f.id != what][:count]
        pixels = drawings.render(Path(what))["pixels"]
        (vector,) = self.endpoint.predict([{"pixels": pixels}]).predictions
        return self.find(count, chosen, queries=[vector])


@dataclass
class Filters:
    """Families to find, families to leave out, and how many drawings of each."""

    only: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    of_each: int | None = None

    def namespaces(self) -> list[Namespace]:
        """As an index is asked."""
        if not self.only and not self.without:
            return []
        return [Namespace("family", self.only, self.without)]


def main() -> int:
    """Print what is similar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("drawing", help="FILE.svg, or FAMILY/NAME of the index")
    parser.add_argument("--only", nargs="+", default=[], metavar="FAMILY")
    parser.add_argument("--without", nargs="+", default=[], metavar="FAMILY")
    parser.add_argument(
        "--of-each",
        type=int,
        help="drawings of a family at most; one of the index counts itself",
    )
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--location", default="us-central1")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    aiplatform.init(location=options.location)
    try:
        found = Search().like(
            options.drawing,
            options.count,
            only=options.only,
            without=options.without,
            of_each=options.of_each,
        )
    except (drawings.Missing, NotFound) as missing:
        print(f"similar: {missing}", file=sys.stderr)
        return 1
    for drawing in found:
        print(f"{drawing.distance:.3f}  {drawing.id}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
