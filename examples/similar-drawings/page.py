"""The page: queries and what was found, side by side, in one file that needs no server."""

import base64
import html
from dataclasses import dataclass, field


@dataclass
class Tile:
    """A drawing on the page."""

    id: str
    svg: str
    hit: bool = False


@dataclass
class Row:
    """What one search found."""

    label: str
    tiles: list[Tile]


@dataclass
class Block:
    """A query and the rows of its results."""

    query: Tile
    says: str
    rows: list[Row]


@dataclass
class Section:
    """Some queries under a heading."""

    title: str
    text: str
    blocks: list[Block] = field(default_factory=list)


STYLE = """
:root { color-scheme: light dark; --paper: #faf9f6; --card: #fff; --ink: #1d1f24;
  --quiet: #6a6f7a; --line: #e4e2dc; --tile: #f4f2ec; --hit: #1a7f4b; --hit-tile: #e2f4e8;
  --accent: #2f5bd3; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171c; --card: #1d2027;
  --ink: #e8e9ec; --quiet: #9aa0ac; --line: #2e323b; --tile: #d9d8d3; --hit: #4cc38a;
  --hit-tile: #bfe8cd; --accent: #8aa9ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 48px 24px 64px; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -.02em; margin: 0 0 8px; }
h2 { font-size: 21px; margin: 56px 0 4px; letter-spacing: -.01em; }
p { margin: 0; color: var(--quiet); max-width: 96ch; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr));
  gap: 16px; margin-top: 28px; }
.figure, .block { background: var(--card); border: 1px solid var(--line);
  border-radius: 14px; }
.figure { padding: 18px 20px; }
.figure b { display: block; font-size: 34px; line-height: 1.1; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.figure span { color: var(--quiet); font-size: 14px; }
.bar { height: 6px; border-radius: 3px; background: var(--line); margin: 12px 0 8px;
  overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--quiet); }
.best b { color: var(--accent); } .best .bar i { background: var(--accent); }
.block { display: grid; grid-template-columns: 168px minmax(0, 1fr); margin-top: 16px; }
.query { padding: 18px; border-right: 1px solid var(--line); text-align: center;
  display: flex; flex-direction: column; justify-content: center; align-items: center; }
.query img { width: 104px; height: 104px; padding: 12px; background: #fff;
  border: 1px solid var(--line); border-radius: 12px; }
.query .name { font-size: 13px; font-weight: 600; margin-top: 10px;
  overflow-wrap: anywhere; hyphens: none; }
.query .says { font-size: 12px; color: var(--quiet); }
.rows { padding: 12px 18px; min-width: 0; }
.row + .row { border-top: 1px dashed var(--line); margin-top: 10px; padding-top: 10px; }
.row h3 { font-size: 12px; font-weight: 600; color: var(--quiet); margin: 0 0 8px; }
.tiles { display: grid; grid-template-columns: repeat(10, minmax(0, 1fr)); gap: 10px; }
figure { margin: 0; text-align: center; min-width: 0; }
figure img { width: 100%; aspect-ratio: 1; padding: 14%; background: var(--tile);
  border-radius: 9px; border: 2px solid transparent; display: block; }
figcaption { font-size: 10.5px; line-height: 1.3; color: var(--quiet); margin-top: 4px;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
figcaption small { font-size: 9.5px; opacity: .8; }
.hit img { border-color: var(--hit); background: var(--hit-tile); }
.hit figcaption { color: var(--hit); font-weight: 600; }
footer { margin-top: 56px; padding-top: 16px; border-top: 1px solid var(--line);
  font-size: 13px; color: var(--quiet); }
@media (max-width: 820px) { .block { grid-template-columns: 1fr; }
  .query { border-right: 0; border-bottom: 1px solid var(--line); }
  .tiles { grid-template-columns: repeat(5, minmax(0, 1fr)); } }
"""


def picture(svg: str, alt: str) -> str:
    """A drawing as an image: nothing in it can run, or reach the page."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def tile(one: Tile) -> str:
    """A result with its name and its family below."""
    family, _, name = one.id.partition("/")
    return (
        f'<figure{" class=hit" if one.hit else ""} title="{html.escape(one.id)}">'
        f"{picture(one.svg, one.id)}<figcaption>{html.escape(name)}<br>"
        f"<small>{html.escape(family)}</small></figcaption></figure>"
    )


def block(one: Block) -> str:
    """A query on the left, its results on the right."""
    of, _, name = one.query.id.rpartition("/")
    says = f"{of}, {one.says}" if of else one.says
    rows = "".join(
        f'<div class="row"><h3>{html.escape(row.label)}</h3>'
        f'<div class="tiles">{"".join(map(tile, row.tiles))}</div></div>'
        for row in one.rows
    )
    return (
        f'<div class="block"><div class="query">{picture(one.query.svg, one.query.id)}'
        f'<div class="name">{html.escape(name)}</div>'
        f'<div class="says">{html.escape(says)}</div></div>'
        f'<div class="rows">{rows}</div></div>'
    )


def figure(
    value: str, label: str, share: float | None = None, best: bool = False
) -> str:
    """A number, with a bar where it is a share."""
    bar = ""
    if share is not None:
        bar = f'<div class="bar"><i style="width:{share:.1%}"></i></div>'
    kind = "figure best" if best else "figure"
    return f'<div class="{kind}"><b>{value}</b>{bar}<span>{html.escape(label)}</span></div>'


def page(
    title: str, text: str, figures: list[str], sections: list[Section], foot: str
) -> str:
    """The whole page."""
    parts = "".join(
        f"<h2>{html.escape(s.title)}</h2><p>{html.escape(s.text)}</p>"
        + "".join(map(block, s.blocks))
        for s in sections
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><main>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p>"
        f'<div class="figures">{"".join(figures)}</div>{parts}'
        f"<footer>{html.escape(foot)}</footer></main></html>\n"
    )
