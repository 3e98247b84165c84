"""The client of Google Cloud Storage: one for each process, patient, its errors those of a disk."""

import contextlib
import errno
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tagger.base.addresses import without_secrets

_TIMEOUT_SECONDS = 60

# For all attempts at one request together.
_RETRY_SECONDS = 120

# Of a transfer whose bytes arrive damaged.
_N_TRIES = 3

# Threads that transfer files side by side.
N_THREADS = 16

# Of the message with which a server refuses an upload whose checksum is another one.
_DAMAGED = "doesn't match calculated CRC32C"

_ARRIVED_DAMAGED = "arrived damaged; try again"

# What the client adds to the text of a server's refusal.
_REPEATED = re.compile(r": \('Request failed with status code'.*", re.DOTALL)

_clients: dict[tuple[int, str | None], Any] = {}

_clients_lock = threading.Lock()


class DamagedOnItsWayError(OSError):
    """What arrived has another checksum than what was sent, time and again."""


def storage_client() -> Any:
    """Client of this process, with the user's Application Default Credentials.

    Without any for an emulator, and for public buckets where there are none.
    """
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    # Connections do not survive a fork.
    key = (os.getpid(), emulator)
    with _clients_lock:
        if key not in _clients:
            _clients[key] = _new_client(emulator)
        return _clients[key]


def _new_client(emulator: str | None) -> Any:
    from google.auth import exceptions
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    # For traces that nobody takes here, the client would look up every bucket, in a thread.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "1")
    if emulator:
        client = storage.Client(project="emulator", credentials=AnonymousCredentials())
    else:
        try:
            # Objects need no project, and not all credentials name one.
            client = storage.Client(project=None)
        except exceptions.DefaultCredentialsError:
            client = storage.Client.create_anonymous_client()
    # Ten connections by default: more threads would open new ones for each request.
    for scheme in ("http://", "https://"):
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=2 * N_THREADS))
    return client


def patience(**more: Any) -> dict[str, Any]:
    """How long the client tries."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry = DEFAULT_RETRY.with_timeout(_RETRY_SECONDS)
    return {"timeout": _TIMEOUT_SECONDS, "retry": retry, **more}


@contextlib.contextmanager
def os_errors(path: str) -> Iterator[None]:
    """Turn what the client raises into the OSErrors that a local file would give."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests import RequestException

    address = f"gs://{path}"
    try:
        yield
    except DataCorruption:
        raise DamagedOnItsWayError(errno.EIO, _ARRIVED_DAMAGED, address) from None
    except exceptions.NotFound as error:
        raise FileNotFoundError(errno.ENOENT, _reason(error), address) from None
    except (exceptions.Unauthorized, exceptions.Forbidden) as error:
        raise PermissionError(errno.EACCES, _reason(error), address) from None
    except exceptions.PreconditionFailed:
        raise FileExistsError(
            errno.EEXIST, "another one has written it meanwhile", address
        ) from None
    except exceptions.RetryError as error:
        cause = error.cause or error
        raise TimeoutError(errno.ETIMEDOUT, _reason(cause), address) from None
    except (
        exceptions.GoogleAPIError,
        GoogleAuthError,
        InvalidResponse,
        RequestException,
    ) as error:
        if _is_of_damage(error):
            raise DamagedOnItsWayError(errno.EIO, _ARRIVED_DAMAGED, address) from None
        if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
            # Credentials that have expired, or none where some are needed.
            raise PermissionError(errno.EACCES, _reason(error), address) from None
        raise OSError(errno.EIO, _reason(error), address) from None


def _reason(error: BaseException) -> str:
    """One line of what an error says; of a JSON document that a server has sent, its message."""
    if len(error.args) > 1 and isinstance(error.args[0], str):
        # Of what else there is, e.g. the whole answer, nobody needs to know.
        text = " ".join(str(item) for item in error.args if isinstance(item, str | int))
    else:
        text = _REPEATED.sub("", str(error))
    start = text.find("{")
    if start >= 0:
        text = f"{text[:start].rstrip(': ')}: {_message_in(text[start:])}".rstrip(": ")
    # The address of an upload in several pieces gives the right to write.
    text = without_secrets(text)
    return (text.splitlines() or [type(error).__name__])[0][:200] or type(error).__name__


def _message_in(text: str) -> str:
    """Message of the JSON document with which a text starts; empty if there is none."""
    try:
        content = json.JSONDecoder().raw_decode(text)[0]
        # Tokens are refused with {"error": code, "error_description": message}.
        message = content.get("error_description") or content["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return " ".join(str(message).split())


def undamaged(transfer: Callable[[], Any]) -> Any:
    """Transfer, and again where bytes were damaged on their way."""
    from google.api_core.exceptions import BadRequest
    from google.cloud.storage.exceptions import DataCorruption

    for _ in range(_N_TRIES - 1):
        try:
            return transfer()
        except DataCorruption:
            continue
        except BadRequest as error:
            if not _is_of_damage(error):
                raise
    return transfer()


def _is_of_damage(error: BaseException) -> bool:
    """Whether a server refuses what has another checksum than it was sent with."""
    from google.api_core.exceptions import BadRequest

    text = getattr(getattr(error, "response", None), "text", "")
    return isinstance(error, BadRequest) and _DAMAGED in f"{error} {text}"
