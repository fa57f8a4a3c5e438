"""The tests of an SDK run where it is installed: `tox -e clients` has all of them."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("mistralai") else ["test_mistral.py"]
