"""Where checkpoints are kept: a file that only grows, standard output for whoever collects logs, a URL."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from mcp_authz import limits
from mcp_authz.errors import AuthzError, FetchRefused
from mcp_authz.posting import Poster


class SinkRefused(AuthzError):
    """The checkpoint could not be kept there."""

    code = "sink_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSink:
    """A file, one checkpoint in each line; best on a disk that only somebody else can write, or only append to."""

    path: Path

    @property
    def name(self) -> str:
        """What it is called in records and errors."""
        return f"file:{self.path}"

    async def keep(self, text: str) -> None:
        """The checkpoint is the last line of the file, on the disk.

        Raises:
            SinkRefused: it cannot be written.
        """
        await anyio.to_thread.run_sync(self._append, text)

    def _append(self, text: str) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self._last() != text:
                    os.write(descriptor, f"{text}\n".encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SinkRefused(f"`{self.path}` cannot be written: {error.strerror}") from None

    def _last(self) -> str | None:
        """The last line, where the file may be read; it may be one that can only be appended to."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - limits.TOKEN_BYTES - 2))
                return file.read().removesuffix(b"\n").rpartition(b"\n")[2].decode("utf-8", "replace")
        except OSError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardOutputSink:
    """Standard output, one checkpoint in each line: who collects it keeps it elsewhere."""

    name: str = "stdout"

    async def keep(self, text: str) -> None:
        """The checkpoint was written.

        Raises:
            SinkRefused: nobody reads.
        """
        try:
            print(text, file=sys.stdout, flush=True)
        except (OSError, ValueError) as error:
            raise SinkRefused(f"standard output cannot be written: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlSink:
    """A URL that takes `{"checkpoint": "..."}` by POST; 2xx means that it is kept."""

    url: str
    poster: Poster

    @property
    def name(self) -> str:
        """What it is called in records and errors."""
        return f"https://{urlsplit(self.url).hostname}"

    async def keep(self, text: str) -> None:
        """The receiver has it.

        Raises:
            SinkRefused: it could not be reached, or did not take it.
        """
        try:
            posted = await self.poster(self.url, {}, json.dumps({"checkpoint": text}).encode())
        except FetchRefused as error:
            raise SinkRefused(str(error)) from None
        if not posted.is_taken:
            raise SinkRefused(f"{self.name} answered with HTTP {posted.status}")
