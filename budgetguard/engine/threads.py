"""What is current, carried to plain threads and the jobs of thread pools, which start with an empty context.

Installed when something first becomes current, never by importing. Only our own variables travel;
other libraries' context stays as Python leaves it. Others wrap the same methods (tracers, error
reporters), before and after us: nothing here relies on being next to the original, or on top.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, Literal

import wrapt

from budgetguard.engine.context import as_judged, frames_to_carry, judged
from budgetguard.engine.links import (
    Entering,
    Frame,
    Link,
    carriers,
    chain_of,
    current,
    job,
    listed,
    of_generators,
)

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor
    from multiprocessing.pool import ThreadPool

# What takes a function and the iterable that its jobs are made of; some read that in a thread of the pool.
_MAPS: Final = ("map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered")
_CALLBACKS: Final = ("callback", "error_callback")

_lock = threading.RLock()
_installed = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is current at one moment, to be made current elsewhere."""

    link: Link | None
    frame: Frame | None


def surroundings() -> Surroundings | None:
    """Return what is current, or None if nothing is."""
    link, frame = current.link, frames_to_carry()
    if link is not None or of_generators:
        link = as_judged()
    return None if link is None and frame is None else Surroundings(link, frame)


def within(carried: Surroundings | None, call: Callable[[], Any]) -> Any:
    """Call something with `carried` current (nothing, if None), as a job, and put back what was."""
    return _carried(carried, call, "job")


def within_thread(carried: Surroundings | None, call: Callable[[], Any]) -> Any:
    """Do as `within` for all of a thread, which lives on when the `with` around its start is left."""
    return _carried(carried, call, "thread")


def _carried(carried: Surroundings | None, call: Callable[[], Any], border: Literal["thread", "job"]) -> Any:
    before = current.link, current.frame
    outer_job = job.seen
    scope = Entering()
    link = frame = None
    if carried is not None:
        frame = carried.frame
        link = carried.link and Link(None, scope, carried.link, border=border)
    current.link, current.frame = link, frame
    job.seen = tuple(listed(link)) if border == "job" else None
    try:
        return call()
    finally:
        scope.open = False
        job.seen = outer_job
        current.link, current.frame = before


carriers.add(_carried.__code__)


def _task_context() -> Context | None:
    """Return a context to start a task in; None if the one that is current says whose it is.

    Generators share the context of their callers, or are stepped in new ones. What is copied for a task
    must be what counts here, where it is started.
    """
    frame = frames_to_carry()
    in_generator = any(link.scope.frame is not None for link in listed(current.link))
    if not of_generators and not in_generator and frame is current.frame:
        return None
    link = as_judged()
    context = copy_context()
    context.run(setattr, current, "link", link and Link(None, Entering(), link, border="thread"))
    context.run(setattr, current, "frame", frame)
    return context


def _forget() -> None:
    """Mark what is current as lost: this process was forked to work for others than who forked it."""
    current.link = chain_of([replace(one, lost=lost or "process") for one, lost in judged()], None)
    of_generators.clear()


def follow() -> None:
    """Make threads, jobs, and tasks carry what is current; once is enough.

    A process that multiprocessing forks forgets it first: its pools' processes work for everybody, and those
    that are spawned begin with nothing.
    """
    global _installed
    if _installed:
        return
    with _lock:
        if _installed:
            return
        _installed = True
    from asyncio import BaseEventLoop
    from concurrent.futures import Future, ThreadPoolExecutor
    from multiprocessing.pool import ThreadPool
    from multiprocessing.util import register_after_fork

    carrier = _Carrier()
    wrapt.wrap_function_wrapper(threading.Thread, "start", carrier.start)
    wrapt.wrap_function_wrapper(ThreadPoolExecutor, "submit", carrier.submit)
    wrapt.wrap_function_wrapper(Future, "add_done_callback", carrier.submit)
    wrapt.wrap_function_wrapper(BaseEventLoop, "create_task", carrier.create_task)
    wrapt.register_post_import_hook(carrier.follow_uvloop, "uvloop")
    wrapt.register_post_import_hook(carrier.follow_gevent, "gevent.threadpool")
    wrapt.wrap_function_wrapper(ThreadPool, "apply_async", carrier.apply_async)
    for name in _MAPS:
        wrapt.wrap_function_wrapper(ThreadPool, name, carrier.map)
    register_after_fork(_Carrier, lambda _: _forget())


class _Carrier:
    """The wrappers."""

    def start(self, wrapped: Callable[[], None], thread: threading.Thread, args: Any, kwargs: Any) -> None:
        carried = surroundings()
        if carried is None:
            return wrapped(*args, **kwargs)
        run = thread.run
        own = vars(thread).get("run")  # another wrapper's, which it may have put there as we do

        def put_back() -> None:
            if vars(thread).get("run", run_within) is not run_within:
                return  # another has wrapped it since
            if own is None:
                vars(thread).pop("run", None)
            else:
                vars(thread)["run"] = own

        def call_within(_thread: object) -> None:
            put_back()
            within_thread(carried, run)

        # A method, as `run` always is: others take it apart into function and thread.
        run_within = MethodType(call_within, thread)
        thread.run = run_within  # type: ignore[method-assign]  # until it runs
        try:
            return wrapped(*args, **kwargs)
        except BaseException:
            put_back()
            raise

    def create_task(self, wrapped: Callable[..., Any], _loop: object, args: Any, kwargs: Any) -> Any:
        # A context that the caller gives is its own affair.
        context = None if kwargs.get("context") is not None else _task_context()
        return wrapped(*args, **kwargs) if context is None else context.run(wrapped, *args, **kwargs)

    def follow_uvloop(self, uvloop: Any) -> None:
        wrapt.wrap_function_wrapper(uvloop.Loop, "create_task", self.create_task)

    def follow_gevent(self, threadpool: Any) -> None:
        # Its pool does for greenlets what would block all of them, such as look-ups of hosts.
        wrapt.wrap_function_wrapper(threadpool.ThreadPool, "spawn", self.submit)

    # Jobs carry also that nothing is current: the pool's thread may have been started by somebody for whom
    # something was.

    # A callback belongs to who added it: it runs in a thread of the pool, after the job of somebody else.
    def submit(
        self, wrapped: Callable[..., Any], _on: ThreadPoolExecutor | Future[Any], args: Any, kwargs: Any
    ) -> Any:
        if not args:
            return wrapped(*args, **kwargs)
        return wrapped(self._job(args[0]), *args[1:], **kwargs)

    def apply_async(self, wrapped: Callable[..., Any], _pool: ThreadPool, args: Any, kwargs: Any) -> Any:
        # Callbacks run in a thread of the pool, and may submit more (joblib's do).
        args = [self._job(one) if place in (0, 3, 4) else one for place, one in enumerate(args)]
        return wrapped(*args, **self._named_jobs(kwargs, ("func", *_CALLBACKS)))

    def map(self, wrapped: Callable[..., Any], _pool: ThreadPool, args: Any, kwargs: Any) -> Any:
        args = [self._job(one) if place in (0, 3, 4) else one for place, one in enumerate(args)]
        kwargs = self._named_jobs(kwargs, ("func", *_CALLBACKS))
        if len(args) > 1:
            args[1] = self._items(args[1])
        elif "iterable" in kwargs:
            kwargs["iterable"] = self._items(kwargs["iterable"])
        return wrapped(*args, **kwargs)

    def _named_jobs(self, kwargs: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self._job(one) if name in names else one for name, one in kwargs.items()}

    def _job(self, function: Any) -> Any:
        if not callable(function):
            return function  # the pool says what is wrong with it
        carried = surroundings()

        def call_within(*args: Any, **kwargs: Any) -> Any:
            return within(carried, lambda: function(*args, **kwargs))

        return call_within

    def _items(self, iterable: Any) -> Any:
        if hasattr(iterable, "__len__") or not isinstance(iterable, Iterable):
            return iterable
        return _Items(iter(iterable), surroundings())


class _Items(Iterator[Any]):
    """An iterator whose steps belong to whoever gave it to a pool."""

    def __init__(self, items: Iterator[Any], carried: Surroundings | None) -> None:
        self._items = items
        self._carried = carried

    def __next__(self) -> Any:
        return within(self._carried, lambda: next(self._items))
