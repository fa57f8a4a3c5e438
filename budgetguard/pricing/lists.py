"""Which list of genai-prices counts: the installed one, a newer one that was fetched, or the program's."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from budgetguard.core.process import of_books
from budgetguard.core.wording import count
from budgetguard.errors import ConfigurationError

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import Provider

logger = logging.getLogger("budgetguard")

INSTALLED: Final = "installed"
FETCHED: Final = "fetched"
PROGRAM: Final = "program"

FORMAT: Final = 1
_DATE: Final = re.compile(r"\b20\d\d-[01]\d-[0-3]\d\b")


@dataclass(frozen=True, slots=True)
class ListFacts:
    """What is known of a price list.

    Attributes:
        kind: `installed` with genai-prices, `fetched` by `budgetguard prices update`, or set by the `program`
            through genai-prices.
        version: of the installed genai-prices.
        dated: the newest day that the list names and that has come: it was made then or later. None if it
            names none.
        fetched_at: when it was fetched, or None.
        providers: how many.
        models: how many, over all providers.
    """

    kind: str
    version: str
    dated: date | None
    fetched_at: datetime | None
    providers: int
    models: int

    def age_days(self, today: date) -> int | None:
        """Return how old it is at most, in days: since it was fetched, else since its newest day."""
        known = self.dated if self.fetched_at is None else self.fetched_at.date()
        return None if known is None else max(0, (today - known).days)

    def describe(self, today: date) -> str:
        """Say which list it is and how old, for the middle of a sentence."""
        age = self.age_days(today)
        old = "of unknown age" if age is None else "of today" if not age else f"{count(age, 'day')} old"
        if self.kind == FETCHED:
            return f"genai-prices' list as it was fetched on {self.fetched_at:%Y-%m-%d} ({old})"
        if self.kind == PROGRAM:
            return "the list that the program has set through genai-prices"
        return f"the list of genai-prices {self.version} ({'' if age is None else 'at most '}{old})"


@dataclass(frozen=True, slots=True)
class FetchedList:
    """A list as it is kept in a file.

    Attributes:
        fetched_at: when.
        version: of the genai-prices that was installed then.
        dated: as `ListFacts.dated`.
        snapshot: the prices.
    """

    fetched_at: datetime
    version: str
    dated: date | None
    snapshot: DataSnapshot

    def is_newer(self, version: str, dated: date | None) -> bool:
        """Whether it is newer than the list that is installed with a version of genai-prices."""
        mine, theirs = self.dated or date.min, dated or date.min
        # Lists of one day: what was fetched is newer unless the package was updated since.
        return mine > theirs or (mine == theirs and self.version == version)


class PriceList:
    """The list that prices are looked up in. Nothing is ever fetched here.

    Args:
        kept: the file with a fetched list; None for the installed one alone.

    Raises:
        ConfigurationError: the file is in a home, and there is none.

    Attributes:
        path: that file in full, or None.
    """

    def __init__(self, kept: str | None = None) -> None:
        self.path = None if kept is None else _path_if_any(kept)
        self._decided: tuple[DataSnapshot, DataSnapshot] | None = None
        self._facts: tuple[DataSnapshot, ListFacts] | None = None

    def snapshot(self) -> DataSnapshot:
        """Return the list in force: the program's own, or the newer one of the fetched and the installed."""
        from genai_prices.data_snapshot import get_snapshot

        current = get_snapshot()
        decided = self._decided
        if decided is None or decided[0] is not current:
            self._decided = decided = current, self._decide(current)
        return decided[1]

    def facts(self) -> ListFacts:
        """Return what is known of the list in force."""
        found = self.snapshot()
        if self._facts is None or self._facts[0] is not found:
            self._facts = found, self._facts_of(found)
        return self._facts[1]

    def _facts_of(self, found: DataSnapshot) -> ListFacts:
        from genai_prices.data_snapshot import get_snapshot

        current = get_snapshot()
        fetched = None if self.path is None or found is current else _read_once(self.path)
        kind = PROGRAM if not _is_installed(current) else INSTALLED if fetched is None else FETCHED
        return ListFacts(
            kind=kind,
            version=installed_version(),
            dated=dated(found.providers) if fetched is None else fetched.dated,
            fetched_at=None if fetched is None else fetched.fetched_at,
            providers=len(found.providers),
            models=sum(len(one.models) for one in found.providers),
        )

    def _decide(self, current: DataSnapshot) -> DataSnapshot:
        if self.path is None or not _is_installed(current):
            return current
        fetched = _read_once(self.path)
        if fetched is None or not fetched.is_newer(installed_version(), dated(current.providers)):
            return current
        return fetched.snapshot


def _path_if_any(setting: str) -> Path | None:
    """Return the file that the setting names; None if it is in a home and there is none: nothing was kept."""
    try:
        return kept_path(setting)
    except ConfigurationError:
        return None


def kept_path(setting: str) -> Path:
    """Return the file that the setting `price_list` names.

    Raises:
        ConfigurationError: it is in a home, and there is none.
    """
    try:
        return Path(setting).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigurationError(f"price_list {setting!r}: {error}; name an absolute path") from error


def installed_version() -> str:
    """Return the version of genai-prices."""
    from importlib.metadata import version

    return version("genai-prices")


def providers_of(raw: object) -> list[Provider]:
    """Build a list's providers from its JSON.

    Raises:
        ValueError: it is none, or one of a form that the installed genai-prices does not know.
    """
    if not isinstance(raw, list) or not raw:
        raise ValueError("it is no array of providers")
    try:
        # What genai-prices reads an update with; it has no public name.
        from genai_prices.types import _providers_from_raw
    except ImportError as error:
        raise ValueError(f"genai-prices {installed_version()} reads lists in another way") from error
    # Its own checks raise errors of many kinds.
    try:
        return _providers_from_raw(raw)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error


def newest_day(texts: Iterator[str], today: date) -> date | None:
    """Return the latest day in texts that has come, or None."""
    best = ""
    limit = today.isoformat()
    for text in texts:
        for day in _DATE.findall(text):
            if best < day <= limit:
                best = day
    try:
        return date.fromisoformat(best) if best else None
    except ValueError:
        return None


def dated(providers: list[Provider]) -> date | None:
    """Return the newest day that a list names and that has come: in a price's begin, or in a comment."""
    return newest_day(_texts(providers), datetime.now(UTC).date())


def _texts(providers: list[Provider]) -> Iterator[str]:
    for provider in providers:
        for model in provider.models:
            if model.price_comments:
                yield model.price_comments
            prices = model.prices if isinstance(model.prices, list) else []
            for one in (*prices, *(model.price_variants or ())):
                begin = getattr(one.constraint, "start_date", None)
                if begin is not None:
                    yield begin.isoformat()


def _is_installed(snapshot: DataSnapshot) -> bool:
    from genai_prices.data import providers

    return snapshot.providers is providers


_reading = threading.RLock()


def _read_once(path: Path) -> FetchedList | None:
    """Read a kept list once a process; None if there is none, or a bad one, which a warning names."""
    with _reading:
        return _read(path)


@cache
@of_books
def _read(path: Path) -> FetchedList | None:
    from genai_prices.data_snapshot import DataSnapshot

    try:
        told = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _warn_of(path, error)
        return None
    try:
        if not isinstance(told, Mapping) or told.get("format") != FORMAT:
            raise ValueError("it is of another form")
        fetched_at = datetime.fromisoformat(told["fetched_at"])
        if fetched_at.tzinfo is None:
            raise ValueError("its time has no zone")
        named = told["dated"]
        return FetchedList(
            fetched_at=fetched_at,
            version=str(told["version"]),
            dated=None if named is None else date.fromisoformat(named),
            snapshot=DataSnapshot(providers_of(told["providers"]), from_auto_update=False),
        )
    except (ValueError, TypeError, KeyError) as error:
        _warn_of(path, error)
        return None


def forget_kept() -> None:
    """Read kept lists again when they are next asked for."""
    with _reading:
        _read.cache_clear()


def _warn_of(path: Path, error: Exception) -> None:
    logger.warning(
        "budgetguard: the fetched price list %s cannot be used (%s), so the installed one is: fetch it again "
        "with `budgetguard prices update`, or delete it",
        path,
        error,
    )


def write_kept(path: Path, value: Mapping[str, Any]) -> None:
    """Keep a list: as a whole, or not at all.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    waiting = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with waiting.open("w", encoding="ascii") as file:
            json.dump(value, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        waiting.replace(path)
    finally:
        waiting.unlink(missing_ok=True)
