"""The spool: settlements that a store did not take, on the local disk until it does.

Each is one small file, written and synced under another name and then renamed, so that it is there as a
whole or not at all. A process that is killed while its store is away leaves them to the next one, and
whoever delivers one twice books it once: a settlement counts once per hold id.

A store that has lost its accounts, or is not restored yet, takes a settlement for one of nobody. So such a
settlement stays, under another name, and is sent again whenever the store is opened, until somebody says
that it may go.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from budgetguard.core.holds import Hold, Settlement, UnknownAccount
from budgetguard.core.money import Nanos
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import ConfigurationError
from budgetguard.events import logger
from budgetguard.stores.base import Store, public_url
from budgetguard.stores.wire import to_json

_ABOUT: Final = "store.json"
_UNKNOWN: Final = ".unknown.json"
_LARGEST: Final = 1_048_576


def spool_folder(setting: str) -> Path:
    """Return the folder that the setting `spool` names.

    Raises:
        ConfigurationError: it is in a home, and there is none.
    """
    try:
        return Path(setting).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"spool {setting!r}: {error}; name an absolute folder") from error


@dataclass(frozen=True, slots=True)
class Spooled:
    """A settlement that waits.

    Attributes:
        path: its file.
        hold: what it settles.
        settlement: how the call ended.
        unknown: a store has answered that it does not know who is charged.
    """

    path: Path
    hold: Hold
    settlement: Settlement
    unknown: bool


class Spool:
    """The settlements of one project that one store has not taken.

    Args:
        folder: where spools are; made when the first settlement comes (0700).
        url: the store's. Credentials and options are no part of what it is known by.
        project: whose accounts.
    """

    def __init__(self, folder: Path, url: str, project: str) -> None:
        self.url = public_url(url)
        self.project = project
        name = hashlib.sha256(json.dumps([self.url, project]).encode()).hexdigest()[:16]
        self.folder = folder / name

    def put(self, hold: Hold, settlement: Settlement) -> None:
        """Keep a settlement on disk; when this returns it outlives the process and a power cut.

        Raises:
            OSError: it could not be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = self.folder / _ABOUT
        if not about.exists():
            _write(about, {"store": self.url, "project": self.project})
        _write(self._path(hold.id), {"hold": hold, "settlement": settlement})
        _sync(self.folder)

    def remove(self, hold_id: str) -> None:
        """Forget a settlement that the store has taken; idempotent.

        Raises:
            OSError: its file cannot be removed; delivering it again changes nothing.
        """
        path = self._path(hold_id)
        path.unlink(missing_ok=True)
        path.with_suffix(_UNKNOWN).unlink(missing_ok=True)

    def mark_unknown(self, hold_id: str) -> None:
        """Note that the store does not know who is charged; idempotent.

        Raises:
            OSError: its file cannot be renamed; it waits like the others.
        """
        path = self._path(hold_id)
        with contextlib.suppress(FileNotFoundError):  # noted before, or delivered meanwhile
            path.replace(path.with_suffix(_UNKNOWN))

    def set_aside(self, hold_id: str, error: Exception) -> None:
        """Put a settlement that no store can take where nobody tries again, and log it."""
        path = self._path(hold_id)
        _set_aside(path if path.exists() else path.with_suffix(_UNKNOWN), error)

    def waiting(self) -> Iterator[Spooled]:
        """Yield what waits, oldest first.

        A file that makes no sense is set aside, one that cannot be read is left, and either is told of.
        """
        files = _files(self.folder)
        if files:
            # Reading takes pydantic, which a program whose spool is empty need not load.
            from budgetguard.stores.wire_types import read_hold, read_settlement
        for path in files:
            hold_id, _, rest = path.name.partition(".")
            try:
                found = json.loads(_text(path))
                hold, settlement = read_hold(found["hold"]), read_settlement(found["settlement"])
                if hold.id != hold_id:
                    raise ValueError(f"it settles hold {hold.id!r}")
            except FileNotFoundError:  # another process has delivered it meanwhile
                continue
            except (OSError, MemoryError) as error:
                logger.error(
                    "budgetguard: a spooled settlement cannot be read, and waits: %s: %s", path, error
                )
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are to be delivered
                _set_aside(path, error)
                continue
            yield Spooled(path, hold, settlement, unknown=rest == _UNKNOWN[1:])

    def _path(self, hold_id: str) -> Path:
        if not hold_id.isalnum() or not hold_id.isascii():
            raise ConfigurationError(f"hold id {hold_id!r} must be letters and digits to name a file")
        return self.folder / f"{hold_id}.json"


def spools(folder: Path) -> Iterator[Spool]:
    """Yield the spools in a folder that hold anything, in order of their stores."""
    found = []
    for about in folder.glob(f"*/{_ABOUT}"):
        try:
            said: dict[str, Any] = json.loads(_text(about))
            spool = Spool(folder, said["store"], said["project"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are to be seen
            logger.error("budgetguard: whose settlements are in %s cannot be read: %s", about.parent, error)
            continue
        if spool.folder == about.parent and any(_files(spool.folder)):
            found.append(spool)
    yield from sorted(found, key=lambda spool: (spool.url, spool.project))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".json" and path.name != _ABOUT)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        logger.error("budgetguard: what waits in the spool cannot be listed: %s", error)
        return []


def _text(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for whoever writes
        raise OSError("it is no file")
    if status.st_size > _LARGEST:
        raise ValueError(f"it is {status.st_size:,} bytes long")
    return path.read_text("ascii")


def _write(path: Path, value: object) -> None:
    # A name of its own: threads and processes may write the same settlement at the same time.
    draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(to_json(value))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    # The name of a file is in its folder, which has to reach the disk as well. Not on Windows.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_suffix(".bad")
    try:
        path.replace(aside)
    except OSError as renaming:
        logger.error("budgetguard: a spooled settlement makes no sense: %s (%r; %s)", path, error, renaming)
        return
    # Not the whole of it: what a parser says of a long text may be as long.
    said = f"{type(error).__name__}: {error}"[:200]
    logger.error("budgetguard: a spooled settlement makes no sense, and was set aside as %s: %s", aside, said)


# What waits, listed, and sent to the store that a project has moved to


@dataclass(frozen=True, slots=True)
class SpooledCost:
    """What waits in the spool for one project of one store.

    Attributes:
        store: the store's URL, without credentials.
        project: whose calls.
        settlements: how many wait.
        cost: Nanos that they come to.
        oldest: when the oldest of their calls was made (milliseconds).
        unknown: how many of them the store has answered that it does not know who is charged.
    """

    store: str
    project: str
    settlements: int
    cost: Nanos
    oldest: Milliseconds
    unknown: int


def waiting(folder: Path) -> Iterator[SpooledCost]:
    """Yield what waits in a folder of spools, by store and project."""
    for spool in spools(folder):
        number, cost, oldest, unknown = 0, 0, None, 0
        for one in spool.waiting():
            number += 1
            unknown += one.unknown
            cost += one.settlement.cost
            oldest = one.hold.created if oldest is None else min(oldest, one.hold.created)
        if oldest is not None:
            yield SpooledCost(spool.url, spool.project, number, cost, oldest, unknown)


def drop_unknown(folder: Path) -> int:
    """Forget what waits for accounts that their store has said not to know; return how many there were."""
    dropped = 0
    for spool in spools(folder):
        for one in spool.waiting():
            if one.unknown:
                spool.remove(one.hold.id)
                dropped += 1
    return dropped


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a delivery did.

    Attributes:
        settlements: how many the store has taken.
        booked: Nanos that the store booked for them.
        repeated: how many it had had before.
        unknown: accounts that it does not know; what is for them stays in the spool.
    """

    settlements: int
    booked: Nanos
    repeated: int
    unknown: tuple[str, ...]


def deliver(folder: Path, old_url: str, target: Store) -> Delivered:
    """Send what waits in the spool under an old store's name to the store where the project is now.

    Each counts once, however often it is sent, and whoever else sends it.

    Args:
        folder: of the spools.
        old_url: the store that did not take them.
        target: the store to send them to; its project is theirs.

    Raises:
        StoreError: it does not take them; those that it has not taken stay.
    """
    spool = Spool(folder, old_url, target.project)
    number = booked = repeated = 0
    unknown: dict[str, None] = {}
    for one in spool.waiting():
        answer = target.settle(one.hold, one.settlement)
        if isinstance(answer, UnknownAccount):
            unknown[answer.account] = None
            spool.mark_unknown(one.hold.id)
            continue
        number += 1
        booked += answer.booked
        repeated += answer.repeated
        spool.remove(one.hold.id)
    return Delivered(number, booked, repeated, tuple(unknown))
