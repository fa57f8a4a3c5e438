"""Read the documentation's pages: their code, their links, their tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
PACKAGE: Final = ROOT / "budgetguard"
EXAMPLES: Final = tuple(
    path for path in sorted((ROOT / "examples").glob("*.py")) if not path.name.startswith("_")
)

_FENCE = re.compile(r"(?P<indent> *)```(?P<info>.*)")
_CODE_SPAN = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """Hold one fenced block: its info string, the number of its first line, and its lines."""

    info: str
    start: int
    lines: tuple[str, ...]


def name(path: Path) -> str:
    """Return what a page or file is called in test names: its path from the repository's root."""
    return str(path.relative_to(ROOT))


def blocks(text: str) -> Iterator[Block]:
    """Yield a page's fenced blocks, in order; an indented block loses its indent."""
    fence: re.Match[str] | None = None
    start = 0
    kept: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        found = _FENCE.fullmatch(line)
        if fence is None:
            if found:
                fence, start, kept = found, number + 1, []
        elif found and not found["info"]:
            yield Block(fence["info"].strip(), start, tuple(kept))
            fence = None
        else:
            kept.append(line.removeprefix(fence["indent"]))
    assert fence is None, f"the block that opens in line {start - 1} is never closed"


def script(text: str) -> str:
    """Return a page's ```python blocks as one program, every line in the line that it has on the page."""
    lines = [""] * len(text.splitlines())
    for block in blocks(text):
        if block.info == "python":
            lines[block.start - 1 : block.start - 1 + len(block.lines)] = block.lines
    return "\n".join(lines) + "\n"


def commands(text: str) -> list[str]:
    """Return the commands of ours in a page's ```console blocks (after `$`) and in its untagged ones."""
    prompts = {"console": "$ budgetguard ", "": "budgetguard "}
    return [
        line.removeprefix("$ ")
        for block in blocks(text)
        if block.info in prompts
        for line in block.lines
        if line.startswith(prompts[block.info])
    ]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    lines = text.splitlines()
    for block in blocks(text):
        first, last = block.start - 2, block.start + len(block.lines)
        lines[first:last] = [""] * (last - first)
    return "\n".join(lines)


def links(text: str) -> list[str]:
    """Return where a page's links go."""
    return _LINK.findall(_CODE_SPAN.sub("", prose(text)))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def table(text: str, heading: str) -> list[list[str]]:
    """Return the rows below the head of the first table after a heading, cell by cell."""
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"there is no heading {heading!r}"
    rows: list[list[str]] = []
    for line in rest.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def code(cell: str) -> list[str]:
    """Return what a table's cell has in backquotes."""
    return re.findall(r"`([^`]+)`", cell)
