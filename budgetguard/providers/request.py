"""A request to a provider as a value: whoever makes it, endpoints and pricing read only this."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, TypeVar, cast

from budgetguard.errors import ConfigurationError

T = TypeVar("T")

# Where a file given as a tuple has its parts.
_NAME: Final = 0
_CONTENT: Final = 1


class Form(dict[str, Any]):
    """A multipart request's fields, with its files beside them.

    Attributes:
        files: (field, file) in the order in which they are sent; a file is bytes, an open file, or a tuple
            (name, content, ...).
    """

    def __init__(self, fields: Mapping[str, Any], files: tuple[tuple[str, object], ...]) -> None:
        super().__init__(fields)
        self.files = files


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request to a provider's API.

    Attributes:
        method: such as `POST`, in capitals.
        base_url: the API's address, which decides what models cost there.
        address: the absolute URL that it is sent to.
        path: as tables of endpoints have it: without host, version and query.
        headers: what the caller set beside the client's own, by name in small letters.
        query: the parameters beside the path.
        body: the JSON object, or a `Form` where files are uploaded.
    """

    method: str
    base_url: str
    address: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, object] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)


def with_files(body: Mapping[str, Any], files: object) -> Mapping[str, Any]:
    """Return a request's body with its files beside it; the body itself if it has none.

    Args:
        body: its fields.
        files: a mapping of field to file, or (field, file) pairs.
    """
    if not files:
        return body
    pairs = files.items() if isinstance(files, Mapping) else cast(Iterable[tuple[str, object]], files)
    return Form(body, tuple((str(field), file) for field, file in pairs))


def files_of(body: Mapping[str, Any], *fields: str) -> list[object]:
    """Return the files of some fields; `image[]` counts as `image`."""
    files = getattr(body, "files", ())
    return [file for field, file in files if field.partition("[")[0] in fields]


def look_into(file: object, read: Callable[[BinaryIO, int, str], T]) -> T:
    """Return what `read` sees of a file's content, from its beginning.

    The file is put back where it stood. The whole file is what is sent: the HTTP library rewinds it, wherever
    it stands.

    Args:
        file: one of the request's files.
        read: (content, size in bytes, file name or "") -> what it sees.

    Raises:
        ConfigurationError: it cannot be read without consuming it.
    """
    name: object = None
    content = file
    if isinstance(file, tuple) and len(file) > _CONTENT:
        name, content = file[_NAME], file[_CONTENT]
    if isinstance(content, bytes | bytearray | memoryview):
        return read(io.BytesIO(content), len(content), _text(name))
    if isinstance(content, str):
        data = content.encode()
        return read(io.BytesIO(data), len(data), _text(name))
    opened = cast(BinaryIO, content)
    try:
        stood = opened.tell()
        opened.seek(0, os.SEEK_END)
        size = opened.tell()
        opened.seek(0)
        binary = isinstance(opened.read(0), bytes)
    except (AttributeError, OSError, ValueError) as error:
        raise _unreadable(content) from error
    try:
        if not binary:
            raise _unreadable(content)
        return read(opened, size, _text(name or getattr(content, "name", None)))
    finally:
        opened.seek(stood)


def _text(name: object) -> str:
    return os.path.basename(name) if isinstance(name, str) else ""  # noqa: PTH119 - a name, not a path


def _unreadable(content: object) -> ConfigurationError:
    if getattr(content, "closed", False) is True:
        return ConfigurationError(
            f"the {type(content).__name__} to upload is closed, so the call was not made; open it anew"
        )
    return ConfigurationError(
        f"a {type(content).__name__} cannot be read without consuming it, so the cost of what it uploads is "
        "unknown and the call was not made; pass bytes, or a file opened with open(path, 'rb')"
    )
