"""The parts of a store's URL, and how it is shown: without passwords, however wrong it is.

What is shown is what is known to be no secret, not what is left when passwords are taken out: in a URL
that is slightly wrong a password may stand anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from os.path import expandvars
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from budgetguard.errors import ConfigurationError

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://(.*)", re.DOTALL)
_NAME: Final = r"\[[0-9A-Fa-f:.%]+\]|[\w.%-]+"
_HOST: Final = rf"(?:{_NAME})?(?::[0-9]{{1,5}})?"
_HOST_AND_PORT: Final = re.compile(rf"({_NAME})(?::([0-9]{{1,5}}))?")
_HOSTS: Final = re.compile(f"{_HOST}(?:,{_HOST})*")
# A path with ; or = in it may be an option that was not written after a question mark.
_PATH: Final = re.compile(r"[^@:;=]*")
_NAMED: Final = re.compile(r"(?:[a-z_]+=[^&]*&)*[a-z_]+=[^&]*")
_WORD: Final = re.compile(r"[A-Za-z_-]{0,24}|-?[0-9.]{1,12}")
_NUMBER: Final = re.compile(r"-?[0-9.]{0,12}")
_NO_URL: Final = re.compile(r"[\w./~\\ \[\]-]*")

# Options that say which store is meant; the others say how to use it, and may be secret.
_PLACES: Final = ("schema", "host", "hostaddr", "port", "dbname")
# Options whose values are never secret, and help where they are wrong.
_HARMLESS: Final = (*_PLACES, "timeout", "prepare", "pool", "ssl_verify", "ssl_check_hostname", "sslmode")


def public_url(url: str) -> str:
    """Return a store's URL as it may be shown and compared: whole paths, no credentials.

    Of its options only those are left that tell stores apart.
    """
    if url.startswith("disk://"):
        folder = Path(expandvars(url.removeprefix("disk://").partition("?")[0]))
        with suppress(RuntimeError):  # there is no home, which opening it will say
            folder = folder.expanduser()
        return f"disk://{folder.absolute()}"
    return _shown(url, _PLACES)


def shown_url(url: str) -> str:
    """Return a store's URL as an error shows it: as it was written, but for what may be secret."""
    if url.startswith("disk://"):
        folder, mark, query = url.partition("?")
        if "@" in query or ("@" in folder and ":" in folder.removeprefix("disk://")):
            return "disk://…"
        return folder + mark + "&".join(map(_shown_option, query.split("&")))
    if _SCHEME.match(url) is None:
        return url if _NO_URL.fullmatch(url) else f"{_word(url.partition(':')[0])}…"
    return _shown(url, _HARMLESS)


def _shown_option(option: str) -> str:
    name, sign, value = option.partition("=")
    if _WORD.fullmatch(name) and (_NUMBER.fullmatch(value) or (name in _HARMLESS and _WORD.fullmatch(value))):
        return option
    return f"{_word(name)}{sign}…"


def shown_word(text: str) -> str:
    """Return a name or value from a URL as an error shows it: quoted if it looks like what it should be."""
    return repr(text) if _WORD.fullmatch(text) else "what was given"


def _shown(url: str, options: tuple[str, ...]) -> str:
    match = _SCHEME.fullmatch(url)
    if match is None:
        return f"{_word(url.partition(':')[0])}…"
    scheme, rest = match[1].lower(), match[2]
    hidden = f"{scheme}://…"
    address, _, query = rest.partition("?")
    address = address.partition("#")[0]
    authority, slash, path = address.partition("/")
    hosts = authority.rpartition("@")[2]
    # What belongs before an @ has no /, ? or # in it; but the options of libpq may have an @.
    before = rest[len(authority) : len(rest) - len(query)]
    of_libpq = scheme.startswith("postgres") and _NAMED.fullmatch(query)
    strange = "@" in before or ("@" in query and not of_libpq)
    if scheme.endswith("+unix"):
        path = f"{slash}{path}".rpartition("@")[2].removeprefix("/")
        hosts, strange = "", ":" in authority and "@" not in address
    if strange or not _HOSTS.fullmatch(hosts) or not _PATH.fullmatch(path):
        return hidden
    if scheme in ("http", "https"):
        slash, path = (slash, path.rstrip("/")) if path.rstrip("/") else ("", "")
    query = query.partition("#")[0]
    given = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] in options]
    kept = urlencode([pair for pair in given if _is_place(*pair)], safe="/")
    return f"{scheme}://{hosts}{slash}{path}" + (f"?{kept}" if kept else "")


def _is_place(name: str, value: str) -> bool:
    return bool(re.fullmatch(r"[\w./,:\[\]-]*", value)) if name in _PLACES else bool(_WORD.fullmatch(value))


def _word(text: str) -> str:
    return text if re.fullmatch("[A-Za-z+_]{0,16}", text) else ""


class URLOption(NamedTuple):
    """An option of a URL: what its value must be, and how to read it; None is read of anything else."""

    must_be: str
    read: Callable[[str], Any]


def seconds_from(least: float, must_be: str = "a number of seconds") -> URLOption:
    """Return an option that is a number of seconds, at least `least`."""

    def read(text: str) -> float | None:
        try:
            seconds = float(text)
        except ValueError:
            return None
        return seconds if least <= seconds < 1e6 else None

    return URLOption(must_be, read)


def matching(pattern: str, must_be: str, made: Callable[[str], Any]) -> URLOption:
    """Return an option whose text matches a pattern, and whose value is made of that text."""
    return URLOption(must_be, lambda text: made(text) if re.fullmatch(pattern, text) else None)


TEXT: Final = URLOption("text", str)
YES_OR_NO: Final = matching("yes|no", "yes or no", "yes".__eq__)


@dataclass(frozen=True, slots=True)
class URLParts:
    """A URL cut into its parts: `SCHEME://[USERINFO@]HOSTS[/PATH][?OPTIONS]`."""

    scheme: str
    userinfo: str
    listed: str
    path: str
    pairs: list[tuple[str, str]]
    shown: str

    @classmethod
    def of(cls, url: str, credentials: str, *, at_in_options: bool = False) -> URLParts:
        """Cut a URL.

        Args:
            url: what to cut.
            credentials: what stands before its @.
            at_in_options: whether an @ may stand in its options.

        Raises:
            ConfigurationError: it has an @ where none may be; the text shows no password.
        """
        scheme, _, rest = url.partition("://")
        address, _, query = rest.partition("?")
        authority, _, path = address.partition("/")
        userinfo, _, listed = authority.rpartition("@")
        if "@" in path or ("@" in query and "@" not in authority and not at_in_options):
            raise ConfigurationError(
                f"a store's {scheme}:// URL has {credentials} with / or ? in it: write %2F or %3F for them"
            )
        return cls(scheme, userinfo, listed, path, parse_qsl(query, keep_blank_values=True), shown_url(url))

    @classmethod
    def of_folder(cls, url: str) -> URLParts:
        """Cut a URL whose path is all that stands before its options."""
        scheme, _, rest = url.partition("://")
        path, _, query = rest.partition("?")
        return cls(scheme, "", "", path, parse_qsl(query, keep_blank_values=True), shown_url(url))

    def error(self, text: str) -> ConfigurationError:
        """Return an error about this URL, which shows nothing that may be secret."""
        return ConfigurationError(f"store {self.shown!r}: {text}")

    def credentials(self) -> tuple[str | None, str | None]:
        """Return user and password."""
        username, _, password = self.userinfo.partition(":")
        return unquote(username) or None, unquote(password) or None

    def hosts(self, default_port: int) -> tuple[tuple[str, int], ...]:
        """Return the hosts with their ports, in their order."""
        found = []
        for text in self.listed.split(","):
            match = _HOST_AND_PORT.fullmatch(text)
            port = int(match[2]) if match and match[2] else default_port
            if match is None or not 0 < port < 65_536:
                raise self.error(
                    f"{shown_word(text)} is no host: write HOST or HOST:PORT, with IPv6 in brackets"
                )
            found.append((match[1].strip("[]"), port))
        return tuple(found)

    def refuse_options_in_path(self, where: str) -> None:
        """Raise if the path looks as if it had options in it, which may be secret."""
        if ";" in self.path or "=" in self.path:
            raise self.error(
                f"it has options in {where}: they come after a question mark, with & between them "
                f"(in {where}, ; and = are written %3B and %3D)"
            )

    def options(
        self,
        table: Mapping[str, URLOption],
        *,
        tls: bool = True,
        secure: str = "",
        beside: str = "",
        others: bool = False,
    ) -> dict[str, Any]:
        """Return the options, read.

        Args:
            table: those that there are.
            tls: whether those of TLS make sense.
            secure: the schemes that use TLS.
            beside: what else to say where one is unknown.
            others: leave out those that the table lacks, which somebody else reads.
        """
        found = {}
        for name, text in self.pairs:
            option = table.get(name)
            if option is None and others:
                continue
            if option is None:
                raise self.error(f"unknown option {shown_word(name)}; it takes {', '.join(table)}{beside}")
            if name.startswith("ssl_") and not tls:
                raise self.error(f"{name} needs TLS: write {secure}")
            value = option.read(text)
            if value is None:
                raise self.error(f"{name} must be {option.must_be}, not {shown_word(text)}")
            found[name] = value
        return found
