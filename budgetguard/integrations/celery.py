"""Celery: who pays travels with a task, from where it is sent to the worker that does it.

    app = Celery("jobs", broker="redis://...")
    carry_payers()  # in the module that both the program and its workers import

The user, tags and runs around `delay`, `apply_async` and the like are put into a header of the message, and
are current while a worker does the task: also for retries, and for the tasks that it sends itself (chains,
chords and their callbacks among them).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import budgetguard
from budgetguard.engine.carrying import KEY, enter_packed, packed_payer
from budgetguard.errors import ConfigurationError

try:
    from celery import signals
except ImportError as error:
    raise ImportError("budgetguard.integrations.celery needs Celery: pip install celery") from error

if TYPE_CHECKING:
    from contextlib import ExitStack

    from budgetguard.guard import Guard

_UID: Final = "budgetguard.integrations.celery"
_ENTERED: Final = "_budgetguard_entered"

_carrying: list[_PayerCarrier] = []


def carry_payers(guard: Guard | None = None) -> Callable[[], None]:
    """Let each task be paid by who sent it, in this process and in its workers; twice is once.

    Args:
        guard: whose runs (`with guard.budget(...)`) travel; by default the default guard's. Users and tags
            are those of all guards.

    Returns:
        A function that ends it.

    Raises:
        ConfigurationError: it was begun for another guard.
    """
    carrier = _PayerCarrier(budgetguard.default_guard() if guard is None else guard)
    if _carrying:
        if _carrying[0].guard is not carrier.guard:
            raise ConfigurationError(
                f"payers are carried for {_carrying[0].guard!r} already: end that before, by calling what "
                "carry_payers returned"
            )
        return _carrying[0].end
    _carrying.append(carrier)
    carrier.begin()
    return carrier.end


class _PayerCarrier:
    """The receivers of Celery's signals."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self._receivers: dict[Any, Callable[..., None]] = {
            signals.before_task_publish: self._sent,
            signals.task_prerun: self._begun,
            signals.task_postrun: self._ended,
        }

    def begin(self) -> None:
        for signal, receiver in self._receivers.items():
            signal.connect(receiver, weak=False, dispatch_uid=_UID)

    def end(self) -> None:
        """Carry nobody any more."""
        if self not in _carrying:
            return
        _carrying.remove(self)
        for signal in self._receivers:
            signal.disconnect(dispatch_uid=_UID)

    def _sent(self, headers: dict[str, Any] | None = None, **_: object) -> None:
        if headers is not None and (packed := packed_payer(self.guard.engine)) is not None:
            headers[KEY] = packed

    def _begun(self, task: Any = None, **_: object) -> None:
        request = task.request
        # What is called in this process (`apply`, `task_always_eager`) has no header: its caller pays.
        packed = request.get(KEY)
        if packed is not None:
            setattr(request, _ENTERED, enter_packed(packed, self.guard.engine))

    def _ended(self, task: Any = None, **_: object) -> None:
        entered: ExitStack | None = vars(task.request).pop(_ENTERED, None)
        if entered is not None:
            entered.close()
