"""Every method of the real client, and the first request that it makes."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

BASE = "https://api.anthropic.com/"
# Copies of older clients for other clouds have connections of their own, which nobody closes.
CLOUDS_COPY = find_spec("anthropic.lib._platform_client") is not None
# Faces of other resources, which lead to the same methods.
_NOT_RESOURCES = ("with_", "_")
# What a method is called with, where it needs or wants more than any text.
_ARGUMENTS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "x"}],
    "tools": [],
    "max_tokens": 5,
    "file": ("a.txt", io.BytesIO(b"x")),
    "files": [("a/SKILL.md", b"x")],
    "archive": ("a.zip", b"x"),
    "body": {},
}


class Sent(BaseException):
    """A method came to the request that it makes."""

    def __init__(self, method: str, url: str) -> None:
        super().__init__(method, url)
        self.method = method
        self.url = url


def recording(kind: Any) -> Any:
    """Return a client of a class that goes as far as its requests."""

    class Recording(kind):  # type: ignore[misc]
        def request(self, cast_to: Any, options: Any, **_: Any) -> Any:
            raise Sent(options.method, options.url)

    return Recording(api_key="test", base_url=BASE)


def resources(thing: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the resources below a client, and their dotted names."""
    for part in dir(type(thing)):
        if part.startswith(_NOT_RESOURCES):
            continue
        if type(inspect.getattr_static(type(thing), part)).__name__ != "cached_property":
            continue
        below = getattr(thing, part)
        if type(below).__module__.startswith("anthropic.resources"):
            yield f"{name}{part}", below
            yield from resources(below, f"{name}{part}.")


def what_it_sends(method: Any) -> Sent | None:
    """Return the first request of a method, or None if it makes none."""
    wanted = [
        parameter
        for parameter in inspect.signature(method).parameters.values()
        if (parameter.default is parameter.empty or parameter.name in _ARGUMENTS)
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    arguments = {one.name: _ARGUMENTS.get(one.name, "x1") for one in wanted}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of methods that are deprecated, which cost what they did
        try:
            made = method(**arguments)
            if hasattr(made, "__enter__"):
                made.__enter__()
            elif hasattr(made, "__next__"):
                next(made)
        except Sent as sent:
            return sent
        except Exception:
            return None
    return None


def methods(kind: Any) -> Iterator[tuple[str, Sent]]:
    """Yield each method that sends something: its dotted name, and what it sends."""
    with recording(kind) as client:
        for name, resource in resources(client):
            for part, _ in inspect.getmembers(type(resource), inspect.isfunction):
                if part.startswith("_"):
                    continue
                sent = what_it_sends(getattr(resource, part))
                if sent is not None:
                    yield f"{name}.{part}", sent
