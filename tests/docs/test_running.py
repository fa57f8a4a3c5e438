"""What runs the documentation notices what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import pages
from .running import checked, environment, python, run


def _outcome(text: str, folder: Path) -> tuple[int, str]:
    done = run(python(checked(pages.script(text), folder)), folder, environment(folder))
    return done.returncode, done.stderr


def _page(*lines: str) -> str:
    return "\n".join(["# Title", "", "```python", *lines, "```", ""])


def test_a_page_that_says_what_its_code_prints_passes(tmp_path: Path) -> None:
    assert _outcome(_page("print(1 + 1, [3])  # -> 2 [...]"), tmp_path) == (0, "")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (("print(1 + 1)  # -> 3",), "line 4 prints '2', and the page says '3'"),
        (("if False:", "    print(1)  # -> 1"), "never reached: lines [5]"),
        (("import warnings", "warnings.warn('old')"), "UserWarning: old"),
        (("raise SystemExit('gone')",), "gone"),
        (("import socket", "socket.socket().connect(('192.0.2.1', 80))"), "may connect to"),
        (("import socket", "socket.getaddrinfo('example.com', 80)"), "may look up 'example.com'"),
    ],
)
def test_a_page_whose_code_does_otherwise_fails(
    lines: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    code, said = _outcome(_page(*lines), tmp_path)
    assert code != 0
    assert complaint in said


def test_blocks_make_one_program_and_keep_their_lines() -> None:
    text = _page("a = 1") + "\n```console\n$ ls\n```\n\n```python {.no-run}\nb = 2\n```\n" + _page("c = a")
    program = pages.script(text).splitlines()
    assert [(number, line) for number, line in enumerate(program, 1) if line] == [(4, "a = 1"), (17, "c = a")]


def test_only_commands_of_ours_are_run() -> None:
    text = "```console\n$ pip install x\n$ budgetguard users\nlisted\n```\n"
    text += "```console {.no-run}\n$ budgetguard serve\n```\n"
    text += "```\npip install x\nbudgetguard demo\n```\n"
    assert pages.commands(text) == ["budgetguard users", "budgetguard demo"]


def test_links_and_anchors_are_found_in_prose_alone() -> None:
    text = "# A `b` c: d\n\n[x](y.md#z) `[no](no.md)`\n```python\n# not a title\n[n](n)\n```\n"
    assert pages.links(text) == ["y.md#z"]
    assert pages.anchors(text) == {"a-b-c-d"}


def test_a_block_that_is_never_closed_is_an_error() -> None:
    with pytest.raises(AssertionError, match="line 1 is never closed"):
        pages.script("```python\nx = 1\n")
