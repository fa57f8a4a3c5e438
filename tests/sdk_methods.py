"""Every method of a client of openai's generator, and the first request that it makes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Faces of other resources, which lead to the same methods.
_NOT_RESOURCES = ("with_", "_")


class Sent(BaseException):
    """A method came to the request that it makes."""

    def __init__(self, method: str, url: str) -> None:
        super().__init__(method, url)
        self.method = method
        self.url = url


def methods(
    kind: Any, base_url: str, arguments: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[..., Any], Sent]]:
    """Yield each method that sends something: its dotted name, itself, and what it sends.

    Args:
        kind: the client's class.
        base_url: of the client.
        arguments: what methods are called with, by name, where they need or want more than any text.
    """

    class Recording(kind):  # type: ignore[misc]
        def request(self, cast_to: Any, options: Any, **_: Any) -> Any:
            raise Sent(options.method, options.url)

    package = kind.__module__.partition(".")[0]
    with Recording(api_key="test", base_url=base_url) as client:
        for name, resource in _resources(client, f"{package}.resources"):
            for part, _ in inspect.getmembers(type(resource), inspect.isfunction):
                if part.startswith("_"):
                    continue
                method = getattr(resource, part)
                if (sent := _sent_by(method, arguments)) is not None:
                    yield f"{name}.{part}", method, sent


def _resources(thing: Any, package: str, name: str = "") -> Iterator[tuple[str, Any]]:
    for part in dir(type(thing)):
        if part.startswith(_NOT_RESOURCES):
            continue
        if type(inspect.getattr_static(type(thing), part)).__name__ != "cached_property":
            continue
        below = getattr(thing, part)
        if type(below).__module__.startswith(package):
            yield f"{name}{part}", below
            yield from _resources(below, package, f"{name}{part}.")


def _sent_by(method: Any, arguments: Mapping[str, Any]) -> Sent | None:
    wanted = [
        parameter
        for parameter in inspect.signature(method).parameters.values()
        if (parameter.default is parameter.empty or parameter.name in arguments)
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of methods that are deprecated, which cost what they did
        try:
            made = method(**{one.name: arguments.get(one.name, "x1") for one in wanted})
            if hasattr(made, "__enter__"):
                made.__enter__()
            elif hasattr(made, "__next__"):
                next(made)
        except Sent as sent:
            return sent
        except Exception:
            return None
    return None
