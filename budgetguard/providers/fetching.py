"""Fetch what a projection needs of the provider, as the caller would ask for it: free requests only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from budgetguard.engine.flow import Work, finished
from budgetguard.engine.provider_call import Do
from budgetguard.providers.json import is_absent

Take = Callable[[bytes], bool]

# What belongs to the caller's own request, and not to its key, organization or API version.
_NOT_THEIRS: Final = ("accept", "accept-encoding", "content-length", "content-type", "idempotency-key")
_PIECE: Final = 1 << 18


class Fetcher:
    """Free requests with the caller's client, headers and timeout.

    They pass the client's guard as any request does, so none can cost anything. What they raise is the
    client's own errors.

    Args:
        client: the SDK's.
        headers: of the request that is being prepared, by name in small letters.
        timeout: of that request, or what stands for none.
    """

    def __init__(self, client: Any, headers: Mapping[str, Any], timeout: object) -> None:
        self._client = client
        self._headers = {
            name: value
            for name, value in headers.items()
            if name not in _NOT_THEIRS and not name.startswith("x-stainless-")
        }
        self._more = {} if is_absent(timeout) else {"timeout": timeout}

    def post(self, path: str, body: Mapping[str, Any], **more: Any) -> Do:
        """Return the step that POSTs JSON to an endpoint that is free, and gets JSON, parsed.

        Args:
            path: as the client's own methods have it.
            body: JSON.
            more: other `timeout` (seconds) and `max_retries` than the caller's.
        """
        options = {"headers": self._headers, **self._more, **more}
        return Do(partial(self._client.post, path, body=body, cast_to=object, options=options))

    def get(self, path: str) -> Do:
        """Return the step that GETs JSON, parsed.

        Args:
            path: without `/v1`.
        """
        options = {"headers": self._headers, **self._more}
        return Do(partial(self._client.get, path, cast_to=object, options=options))

    def work(self, run: Callable[[], object]) -> Do:
        """Return the step that computes something long; an event loop goes on meanwhile."""
        return Do(partial(_in_thread, run) if self._is_async else run)

    def content(self, file_id: str, take: Take) -> Do:
        """Return the step that reads a file, piece by piece, for as long as `take` says to go on.

        An event loop goes on meanwhile: there `take` runs in a worker thread.
        """
        read = self._client.files.with_streaming_response.content
        opened = partial(read, file_id, extra_headers=self._headers, **self._more)
        return Do(partial(_read_async if self._is_async else _read, opened, take))

    @property
    def _is_async(self) -> bool:
        return any(kind.__name__ == "AsyncAPIClient" for kind in type(self._client).__mro__)


async def _in_thread(run: Callable[[], object]) -> object:
    return await finished(Work(run, blocking=True))


def _read(opened: Callable[[], Any], take: Take) -> None:
    with opened() as response:
        for piece in response.iter_bytes(_PIECE):
            if not take(piece):
                return


def _read_async(opened: Callable[[], Any], take: Take) -> Awaitable[None]:
    async def read() -> None:
        async with opened() as response:
            async for piece in response.iter_bytes(_PIECE):
                if not await finished(Work(partial(take, piece), blocking=True)):
                    return

    return read()
