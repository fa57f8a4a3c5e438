"""The tests of google-genai run where it is installed: `tox -e clients` has it."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("google") and find_spec("google.genai") else ["test_*.py"]
