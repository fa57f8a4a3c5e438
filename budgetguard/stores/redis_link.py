"""Commands to Redis and Valkey: over pooled connections, bounded in time, sent again after an outage.

redis-py makes the connections and reads the answers; which server to ask, for how long and how often is
decided here, because its own clients bound each step of a command and not the whole.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError, TimeoutError

from budgetguard.errors import StoreError
from budgetguard.stores.redis_errors import PASSING, explain, typed
from budgetguard.stores.redis_routes import ROUTES, SHORTEST_WAIT, Wire, command, connect, pack
from budgetguard.stores.redis_target import Target

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_DICE: Final = random.SystemRandom()
_KEPT_AT_MOST: Final = 64


class Script:
    """Hold a script's text, and its command up to the arguments.

    Attributes:
        text: the Lua of it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        source = text.encode()
        digest = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        self._known = pack((b"EVALSHA", digest, b"1"))
        self._whole = pack((b"EVAL", source, b"1"))

    def command(self, arguments: Sequence[bytes], *, known: bool) -> bytes:
        """Return the command that runs this, by its digest if the server knows it."""
        head = self._known if known else self._whole
        return b"*%d\r\n%b%b" % (3 + len(arguments), head, pack(arguments))


class Link:
    """Run commands on the server that a target names, from any thread, each within a deadline.

    Args:
        target: which server.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._route = ROUTES[target.kind](target)
        self._idle: deque[Wire] = deque()
        self._owner = os.getpid()

    def deadline(self) -> float:
        """Return until when a verb that begins now may take (time.monotonic())."""
        return time.monotonic() + self._target.timeout

    def run(self, script: Script, arguments: Sequence[bytes], deadline: float) -> Any:
        """Run a script over keys that share one hash tag; `arguments` begins with the key.

        It may run twice if the connection breaks, so it must count once.

        Raises:
            StoreError: the server could not be asked, or said no.
        """
        known = script.command(arguments, known=True)
        try:
            try:
                return self._ask(known, deadline)
            except NoScriptError:
                return self._ask(script.command(arguments, known=False), deadline)
        except (RedisError, OSError, UnicodeError) as error:
            raise StoreError(explain(error, self._target)) from error

    def ask(self, *words: bytes) -> Any:
        """Run a command.

        Raises:
            StoreError: the server could not be asked, or said no.
        """
        try:
            return self._ask(command(words), self.deadline())
        except (RedisError, OSError, UnicodeError) as error:
            raise StoreError(explain(error, self._target)) from error

    def close(self) -> None:
        """Let go of the connections that are not in use."""
        while self._idle:
            self._idle.pop().disconnect()

    def _ask(self, packed: bytes, deadline: float) -> Any:
        pause = 0.0
        while True:
            try:
                return self._ask_once(packed, deadline)
            except PASSING as error:
                if isinstance(error, AuthenticationError):
                    raise
                self._route.failed(error)
                if not isinstance(error, ResponseError):
                    self.close()  # what is idle was made before whatever has happened
                if time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
                # The first time at once: the server may merely have closed what was idle for long.
                pause = min(pause * 2, _LONGEST_PAUSE) * _DICE.uniform(0.7, 1) if pause else _FIRST_PAUSE

    def _ask_once(self, packed: bytes, deadline: float) -> Any:
        wire = self._take() or self._connect(deadline)
        try:
            wire.send_packed_command([packed], check_health=False)
            if not wire.can_read(timeout=max(deadline - time.monotonic(), SHORTEST_WAIT)):
                raise TimeoutError("no answer")
            answer = wire.read_response(disable_decoding=True)
        except ResponseError as caught:
            error = typed(caught)
            if isinstance(error, PASSING):
                wire.disconnect()
            else:
                self._keep(wire)
            if error is caught:
                raise
            raise error from caught
        except BaseException:
            wire.disconnect()  # an interrupt too leaves an answer unread
            raise
        self._keep(wire)
        return answer

    def _take(self) -> Wire | None:
        if self._owner != os.getpid():
            # A child of a fork must not talk into its parent's connections, nor shut them.
            self._idle, self._owner = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _keep(self, wire: Wire) -> None:
        if len(self._idle) < _KEPT_AT_MOST:
            self._idle.append(wire)
        else:
            wire.disconnect()

    def _connect(self, deadline: float) -> Wire:
        address = self._route.address(deadline)
        wire = connect(self._target, address, deadline)
        try:
            self._route.check(wire)
        except BaseException:
            wire.disconnect()
            raise
        return wire
