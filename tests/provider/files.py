"""Uploaded files: kept in memory, told of, and given back."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from budgetguard.testing.openai_server import CREATED
from tests.provider import shapes
from tests.provider.connection import HTTPRequest
from tests.provider.exchange import Exchange

PATH = "/v1/files"
_BOUNDARY = re.compile(r'boundary="?([^";]+)')
_NAME = re.compile(rb'\bname="([^"]*)"')
_FILE_NAME = re.compile(rb'filename="([^"]*)"')


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Hold one file."""

    name: str
    purpose: str
    content: bytes


class Files:
    """Keep the files that were uploaded, and those that the server makes itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, StoredFile] = {}
        self._made = 0

    def add(self, content: bytes, *, purpose: str = "batch", name: str = "file.jsonl") -> str:
        """Keep a file, and return its id."""
        with self._lock:
            self._made += 1
            file_id = f"file-{self._made:06d}"
            self._files[file_id] = StoredFile(name, purpose, content)
        return file_id

    def content(self, file_id: str) -> bytes | None:
        """Return what is in a file, or None if there is none of this id."""
        found = self._files.get(file_id)
        return None if found is None else found.content

    def knows(self, path: str) -> bool:
        """Whether a path is one of files."""
        return path == PATH or path.startswith(PATH + "/")

    def serve(self, exchange: Exchange, request: HTTPRequest) -> None:
        """Answer a request; it bills nothing.

        Raises:
            OSError: the client is gone.
        """
        path = urlsplit(request.target).path
        file_id, _, verb = path.removeprefix(PATH).lstrip("/").partition("/")
        if request.method == "POST" and not file_id:
            fields = _form(request)
            purpose = fields.get("purpose", ("", b""))[1].decode()
            name, content = fields.get("file", ("", b""))
            made = self.add(content, purpose=purpose, name=name)
            exchange.send(200, self._shape(made))
        elif request.method == "GET" and not file_id:
            exchange.send(200, shapes.page([self._shape(one) for one in self._files]))
        elif file_id not in self._files:
            text = f"No such File object: {file_id}"
            exchange.send(404, shapes.error_body(404, text, param="id", code="not_found"))
        elif verb == "content":
            headers = {"content-type": "application/octet-stream"}
            exchange.send(200, self._files[file_id].content, headers)
        else:
            exchange.send(200, self._shape(file_id))

    def _shape(self, file_id: str) -> dict[str, Any]:
        file = self._files[file_id]
        return {
            "id": file_id,
            "object": "file",
            "bytes": len(file.content),
            "created_at": CREATED,
            "filename": file.name,
            "purpose": file.purpose,
            "status": "processed",
        }


def _form(request: HTTPRequest) -> Mapping[str, tuple[str, bytes]]:
    """Return the fields of a multipart body: name -> (file name or "", content)."""
    found = _BOUNDARY.search(request.headers.get("content-type", ""))
    if found is None:
        return {}
    fields: dict[str, tuple[str, bytes]] = {}
    for part in request.body.split(b"--" + found[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name, file_name = _NAME.search(head), _FILE_NAME.search(head)
        if name is not None:
            fields[name[1].decode()] = (file_name[1].decode() if file_name else "", content[:-2])
    return fields
