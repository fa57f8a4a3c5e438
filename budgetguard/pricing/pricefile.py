"""A price file: the user's prices as TOML, read again whenever the file has changed."""

from __future__ import annotations

import logging
import os
import stat
import threading
from pathlib import Path
from time import time_ns
from typing import Final, TypeAlias

from budgetguard.core.process import of_books
from budgetguard.errors import ConfigurationError
from budgetguard.pricing.entries import FileEntry
from budgetguard.pricing.parsing import parse

logger = logging.getLogger("budgetguard")

# A file system's clock may be this coarse, so that a second change of a file leaves its time as it was.
_TICK: Final = 100_000_000  # ns

_Signature: TypeAlias = tuple[int, int, int]


class PriceFile:
    """A price file, read again whenever it has changed. Safe to use from many threads.

    Args:
        path: where it is; relative to where the process stands now.

    Raises:
        ConfigurationError: it is not there, or bad.

    Attributes:
        path: in full, whatever folder the process goes to.
    """

    def __init__(self, path: str) -> None:
        try:
            self.path = Path(path).expanduser().absolute()
        except RuntimeError as error:
            raise ConfigurationError(f"prices {path!r}: {error}; name an absolute path") from error
        self._lock = threading.RLock()
        self._entries: tuple[FileEntry, ...] = ()
        self._signature: _Signature | None = None
        self._content = b""
        self._settled = True
        self._bad: ConfigurationError | None = None
        self._told: str | None = None
        try:
            self._load()
        except OSError as error:
            raise ConfigurationError(
                f"the price file {self.path} cannot be read: {error.strerror or error}. Make it, or name "
                "another with prices= or BUDGETGUARD_PRICES"
            ) from error

    def entries(self) -> tuple[FileEntry, ...]:
        """Return its entries as they are now, the most specific first.

        Never raises: while the file is bad or not there, the last good entries stay, and a warning says so.
        """
        try:
            signature = _signature(os.stat(self.path))  # noqa: PTH116 - once a call, and half the time
        except OSError:
            signature = None
        if signature == self._signature and self._settled and signature is not None:
            return self._entries
        self._reload()
        return self._entries

    @of_books
    def _reload(self) -> None:
        with self._lock:
            try:
                self._load()
            except ConfigurationError as error:
                self._tell(error.message)
            except OSError as error:
                self._signature = None
                self._tell(error.strerror or str(error))
            else:
                if self._told is not None:
                    self._told = None
                    logger.warning("budgetguard: the price file %s is in force again", self.path)

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            logger.warning(
                "budgetguard: the price file %s cannot be used any more, so the prices that it had before "
                "stay in force until it is put right: %s",
                self.path,
                problem,
            )

    def _load(self) -> None:
        status = self.path.stat()
        if not stat.S_ISREG(status.st_mode):  # to open another kind may wait for ever
            raise ConfigurationError(f"the price file {self.path} is no file: name one, written in TOML")
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read()
        signature = _signature(status)
        known = signature == self._signature and content == self._content
        self._signature, self._content = signature, content
        self._settled = abs(time_ns() - status.st_mtime_ns) > _TICK
        if not known:
            self._bad = None
            try:
                self._entries = parse(content, self.path)
            except ConfigurationError as error:
                self._bad = error
        if self._bad is not None:
            raise self._bad


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino
