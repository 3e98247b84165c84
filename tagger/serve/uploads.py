"""Files that clients send: on disk while they arrive, within bounds, and gone afterwards."""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from tagger.serve.errors import RequestError
from tagger.serve.settings import MEGABYTE, ServeSettings

_LONGEST_NAME = 200
_NO_FILE = "send an audio file as the body, or as the field 'file' of a form"


@dataclass(frozen=True)
class Upload:
    """A file that a client has sent.

    Parameters
    ----------
    name : str
        What the client calls it; for messages alone.
    file : BinaryIO
        Where it is: a file without a name, which goes with the process whatever ends it.
    """

    name: str
    file: BinaryIO

    def descriptor(self) -> int:
        """Give one more descriptor, to be closed by who reads it: the client's may close before.

        Raises
        ------
        RequestError
            503 where the process has no more.
        """
        try:
            return os.dup(self.file.fileno())
        except OSError as error:
            raise RequestError(
                503, f"the server is out of files ({error.strerror})", retry_seconds=10
            ) from None


def path_of(descriptor: int) -> str:
    """Path at which this process and those that it starts can read a file without a name."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


@asynccontextmanager
async def received(request: Request, settings: ServeSettings) -> AsyncIterator[Upload]:
    """Take the file of a request.

    Parameters
    ----------
    request : Request
        With the file as its body, or as the field ``file`` of a form.
    settings : ServeSettings
        Bounds.

    Raises
    ------
    RequestError
        413 where it is too large, 408 where it takes too long, 422 where there is none.
    """
    _refuse_declared(request, settings)
    body = _bounded(request, settings)
    kind = request.headers.get("content-type", "").lower()
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            if kind.startswith("multipart/form-data"):
                upload = await _of_form(request, body)
            else:
                upload = await _of_body(request, body)
    except TimeoutError:
        raise RequestError(
            408,
            f"the upload took longer than {settings.timeout_seconds:g} s; send a smaller file",
        ) from None
    except ClientDisconnect:
        raise RequestError(400, "the client went away; send it again") from None
    try:
        yield upload
    finally:
        upload.file.close()


def _refuse_declared(request: Request, settings: ServeSettings) -> None:
    # Before a byte of it has come; who says nothing, or lies, is cut off on the way.
    declared = request.headers.get("content-length", "")
    if declared.isdigit():
        _refuse_larger(int(declared), settings)


def _refuse_larger(n_bytes: int, settings: ServeSettings) -> None:
    # A form is a little larger than its file.
    if n_bytes > settings.max_mb * MEGABYTE + MEGABYTE:
        raise RequestError(
            413, f"the upload is larger than {settings.max_mb:g} MB; send a shorter or smaller file"
        )


async def _bounded(request: Request, settings: ServeSettings) -> AsyncGenerator[bytes, None]:
    n_bytes = 0
    async for block in request.stream():
        n_bytes += len(block)
        _refuse_larger(n_bytes, settings)
        yield block


async def _of_body(request: Request, body: AsyncGenerator[bytes, None]) -> Upload:
    # On the disk from its first byte, and without a name from the start.
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by who receives it)
    except OSError as error:
        raise _no_room(error) from None
    try:
        async for block in body:
            file.write(block)
        file.flush()
        if not file.tell():
            raise RequestError(422, f"the request has no body; {_NO_FILE}")
    except OSError as error:
        file.close()
        raise _no_room(error) from None
    except BaseException:
        file.close()
        raise
    return Upload(_named(request.headers.get("x-file-name", "")), file)


async def _of_form(request: Request, body: AsyncGenerator[bytes, None]) -> Upload:
    try:
        form = await MultiPartParser(request.headers, body, max_files=1, max_fields=20).parse()
    except MultiPartException as error:
        raise RequestError(422, f"the form cannot be read ({error.message}); {_NO_FILE}") from None
    except OSError as error:
        raise _no_room(error) from None
    except (KeyError, ValueError, UnicodeError) as error:
        raise RequestError(422, f"the form cannot be read ({error}); {_NO_FILE}") from None
    found = form.get("file")
    if not isinstance(found, UploadFile):
        await form.close()
        raise RequestError(422, f"the form has no file; {_NO_FILE}")
    # Small ones are in memory until then.
    spooled = found.file
    spooled.rollover()  # type: ignore[attr-defined]
    spooled.flush()
    if not found.size:
        await form.close()
        raise RequestError(422, f"the file is empty; {_NO_FILE}")
    return Upload(_named(found.filename or ""), spooled)


def _named(text: str) -> str:
    """Last part of a name, printable: it is shown, and names nothing here."""
    name = PurePosixPath(unquote(text).replace("\\", "/")).name
    shown = "".join(character for character in name if character.isprintable())
    return shown[:_LONGEST_NAME] or "the upload"


def _no_room(error: OSError) -> RequestError:
    return RequestError(
        507,
        f"there is no room for the upload on the server ({error.strerror}); try again later",
        retry_seconds=60,
    )
