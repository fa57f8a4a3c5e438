"""Hand what is current to plain threads and to the jobs of thread pools, which start with an empty context.

Installed when something first becomes current, never by importing. Only our own variables travel;
other libraries' context stays as Python leaves it. Others wrap the same methods (tracers, error
reporters), before and after us: nothing here relies on being next to the original, or on top.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import wrapt

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor
    from multiprocessing.pool import ThreadPool

Surroundings: TypeAlias = Callable[[], Any]
TaskContext: TypeAlias = Callable[[], Context | None]
Within: TypeAlias = Callable[[Any, Callable[[], Any]], Any]

# What takes a function and the iterable that its jobs are made of; some read that in a thread of the pool.
_MAPS: Final = ("map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered")
_CALLBACKS: Final = ("callback", "error_callback")

_lock = threading.RLock()
_installed = False


def follow(
    surroundings: Surroundings,
    within: Within,
    within_thread: Within,
    task_context: TaskContext,
    forget: Callable[[], None],
) -> None:
    """Make threads, jobs, and tasks carry what is current, and processes not; once is enough.

    Args:
        surroundings: returns what is current, or None.
        within: calls a job with that made current.
        within_thread: calls all that a thread does with that made current.
        task_context: returns the context to start a task in; None if that is the current one.
        forget: what a process that multiprocessing has forked does first. Its pools' processes work for
            everybody, and those that are spawned begin with nothing.
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

    carrier = _Carrier(surroundings, within, within_thread, task_context)
    wrapt.wrap_function_wrapper(threading.Thread, "start", carrier.start)
    wrapt.wrap_function_wrapper(ThreadPoolExecutor, "submit", carrier.submit)
    wrapt.wrap_function_wrapper(Future, "add_done_callback", carrier.submit)
    wrapt.wrap_function_wrapper(BaseEventLoop, "create_task", carrier.create_task)
    wrapt.register_post_import_hook(carrier.follow_uvloop, "uvloop")
    wrapt.wrap_function_wrapper(ThreadPool, "apply_async", carrier.apply_async)
    for name in _MAPS:
        wrapt.wrap_function_wrapper(ThreadPool, name, carrier.map)
    register_after_fork(_Carrier, lambda _: forget())


class _Carrier:
    """Hold the wrappers."""

    def __init__(
        self,
        surroundings: Surroundings,
        within: Within,
        within_thread: Within,
        task_context: TaskContext,
    ) -> None:
        self._surroundings = surroundings
        self._within = within
        self._within_thread = within_thread
        self._task_context = task_context

    def start(self, wrapped: Callable[[], None], thread: threading.Thread, args: Any, kwargs: Any) -> None:
        carried = self._surroundings()
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
            self._within_thread(carried, run)

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
        context = None if kwargs.get("context") is not None else self._task_context()
        return wrapped(*args, **kwargs) if context is None else context.run(wrapped, *args, **kwargs)

    def follow_uvloop(self, uvloop: Any) -> None:
        wrapt.wrap_function_wrapper(uvloop.Loop, "create_task", self.create_task)

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
        carried, within = self._surroundings(), self._within

        def call_within(*args: Any, **kwargs: Any) -> Any:
            return within(carried, lambda: function(*args, **kwargs))

        return call_within

    def _items(self, iterable: Any) -> Any:
        if hasattr(iterable, "__len__") or not isinstance(iterable, Iterable):
            return iterable
        return _Items(iter(iterable), self._surroundings(), self._within)


class _Items(Iterator[Any]):
    """Step through an iterator, for whom it was given to a pool by."""

    def __init__(self, items: Iterator[Any], carried: Any, within: Within) -> None:
        self._items = items
        self._carried = carried
        self._within = within

    def __next__(self) -> Any:
        return self._within(self._carried, lambda: next(self._items))
