"""Files from a web mirror, with bounds on time and on memory."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

from xpdl.errors import DataUnavailableError

TIMEOUT = 5.0
"""Seconds to wait for a connection, and for each next piece."""

GRACE = 10.0
SLOWEST = 10_000
"""After `GRACE` seconds, a mirror that sends fewer bytes per second than this is given up."""

_PIECE = 1 << 16


def download(url: str, limit: int, progress: Callable[[int], object]) -> bytes:
    """Return what `url` answers, at most `limit` bytes; see `pieces_of`."""
    received = bytearray()
    for piece in pieces_of(url, limit):
        received += piece
        progress(len(piece))
    return bytes(received)


def pieces_of(url: str, limit: int) -> Iterator[bytes]:
    """Yield what `url` answers, at most `limit` bytes, as it comes.

    Parameters
    ----------
    url : str
        Where to ask.
    limit : int
        The longest answer accepted, in bytes. An endless stream ends there.

    Raises
    ------
    DataUnavailableError
        If there is no connection, no whole answer, or too slow or too long a one. The message
        is the reason only; the caller knows whom it asked.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            yield from _bounded(response, limit)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataUnavailableError(f"it answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise DataUnavailableError(f"no connection: {_reason(error.reason)}") from error
    except TimeoutError as error:
        raise DataUnavailableError(f"nothing came for {TIMEOUT:g} seconds") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataUnavailableError(f"the transfer failed: {_reason(error)}") from error


def _reason(error: str | BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} seconds"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _bounded(response: http.client.HTTPResponse, limit: int) -> Iterator[bytes]:
    start = time.monotonic()
    received = 0
    # read1 hands over what has come; read would wait for a full piece from a trickling mirror,
    # each byte in time for the time-out.
    while piece := response.read1(_PIECE):
        received += len(piece)
        if received > limit:
            raise DataUnavailableError(f"it sent more than the {limit} bytes expected at most")
        if time.monotonic() - start > GRACE + received / SLOWEST:
            raise DataUnavailableError(f"it sent less than {SLOWEST} bytes per second")
        yield piece
