"""The tests of an SDK run where it is installed: `tox -e clients` has all of them."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec

# It asks the internet for its prices, once it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
_SDKS = ("mistralai", "cohere", "litellm")
collect_ignore = [f"test_{name.removesuffix('ai')}.py" for name in _SDKS if not find_spec(name)]

if find_spec("litellm"):
    # Versions of it warn of themselves when they are imported.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litellm  # noqa: F401
