"""Pages of the documentation that show packages of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.running import checked, environment, python, run
from tests.docs.test_docs import OF_OTHERS


@pytest.mark.parametrize("name", OF_OTHERS)
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    for package in OF_OTHERS[name]:
        pytest.importorskip(package)
    program = checked(pages.script((pages.ROOT / name).read_text()), tmp_path)
    done = run(python(program), tmp_path, environment(tmp_path))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
