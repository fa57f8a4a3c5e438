"""Stores' URLs as they may be shown: with no password in them, however wrong they are.

What is shown is what is known to be no secret, not what is left when passwords are taken out: in a URL
that is slightly wrong a password may stand anywhere.
"""

from __future__ import annotations

import re
from contextlib import suppress
from os.path import expandvars
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://(.*)", re.DOTALL)
HOST: Final = r"\[[0-9A-Fa-f:.%]+\]|[\w.%-]+"
"""A host as a URL has it: IPv6 in brackets, or a name."""
_HOST: Final = rf"(?:{HOST})?(?::[0-9]{{1,5}})?"
_HOSTS: Final = re.compile(f"{_HOST}(?:,{_HOST})*")
# With ; or = in it, it may be an option that was not written after a question mark.
_PATH: Final = re.compile(r"[^@:;=]*")
_NAMED: Final = re.compile(r"(?:[a-z_]+=[^&]*&)*[a-z_]+=[^&]*")
_WORD: Final = re.compile(r"[A-Za-z_-]{0,24}|-?[0-9.]{1,12}")
_NUMBER: Final = re.compile(r"-?[0-9.]{0,12}")
_NO_URL: Final = re.compile(r"[\w./~\\ \[\]-]*")

# Options that say which store is meant; the others say how to use it, and may be secret.
_PLACES: Final = ("schema", "host", "hostaddr", "port", "dbname")
# Options whose values are never secret, nor beside the point where they are wrong.
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
