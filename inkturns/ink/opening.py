"""One attempt to open a connection, and the meaning of its failure.

Rules of this file:
- A failure is a Refusal (the server answered no) or a sentence (nobody answered). The next attempt may succeed, except
  after a Refusal that is final.
- The key goes to the address that was named, and nowhere else: no redirect is followed.
- No message holds the key, an address's user or password, or a control character that came over the wire (F57).
"""

import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any

import attrs
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI, WebSocketException
from websockets.uri import parse_uri

from inkturns.errors import RefusedError
from inkturns.events import ServerError
from inkturns.ink.backoff import retry_after
from inkturns.printable import printable

__all__ = ["POLICY_VIOLATION", "Refusal", "check_url", "open_socket", "plain", "refusal_of", "where"]

POLICY_VIOLATION = 1008  # the close code for a setting that the server does not take
LONGEST = 200  # characters of the server's words in a sentence


@attrs.frozen
class Refusal:
    """The server's no: an HTTP status or an `error`'s status_code, its sentence, and how many seconds it asks for."""

    status: int | None
    sentence: str
    wait: float = 0.0

    @property
    def final(self) -> bool:
        """A limit of connections (429), a timeout (408) and a fault of the server (5xx) pass; nothing else does."""
        return self.status is not None and self.status < 500 and self.status not in (408, 429)


def plain(text: str) -> str:
    """Text off the wire without control characters, and at most LONGEST characters of it."""
    text = printable(text.strip())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def where(url: str) -> str:
    """The address without user, password and query."""
    uri = parse_uri(url)
    host = f"[{uri.host}]" if ":" in uri.host else uri.host
    return f"{'wss' if uri.secure else 'ws'}://{host}:{uri.port}{uri.path}"


def check_url(url: str) -> None:
    """Raises ValueError where this is not the address of a WebSocket. The message does not show the address: it may
    hold a password."""
    try:
        parse_uri(url).host.encode("idna")
    except InvalidURI as error:
        raise ValueError(f"must be the address of a WebSocket, such as wss://host:port/path: {error.msg}") from None
    except ValueError:  # a port that is no number, a host that cannot be
        raise ValueError("must be the address of a WebSocket, such as wss://host:port/path") from None


class _Direct(connect):
    """A connection that follows no redirect: the key would go with it."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def open_socket(
    url: str, headers: Mapping[str, str], options: Mapping[str, Any]
) -> ClientConnection | Refusal | str:
    """A connection, or why there is none. Raises RefusedError where every other attempt would fail too."""
    uri = parse_uri(url)
    if uri.host in ("localhost", "::1") or uri.host.startswith("127."):
        options = {"proxy": None, **options}  # a proxy cannot reach this machine
    if uri.secure:
        options = {"ssl": _certificates(), **options}
    more = dict(options.get("additional_headers") or {})
    options = {**options, "additional_headers": {**headers, **more}}
    try:
        return await _Direct(url, **options)
    except InvalidStatus as error:
        response = error.response
        wait = max(map(retry_after, response.headers.get_all("Retry-After")), default=0.0)
        said = _said(response.body)
        return Refusal(response.status_code, f"HTTP {response.status_code}{said and ': '}{said}", wait)
    except ssl.SSLCertVerificationError as error:  # the next attempt would meet the same certificate
        raise RefusedError(
            f"no connection to {where(url)}: its certificate is not trusted ({error.verify_message}); a context that "
            'trusts it goes into options={"ssl": context}'
        ) from None
    except (OSError, InvalidHandshake) as error:
        return f"no connection to {where(url)}: {plain(str(error)) or type(error).__name__}"
    except (WebSocketException, UnicodeError, ImportError) as error:  # a host or a proxy that cannot exist
        reason = f"the proxy's address is wrong: {error.msg}" if isinstance(error, InvalidProxy) else str(error)
        raise RefusedError(f"no connection to {where(url)}: {plain(reason)}") from None


@cache
def _certificates() -> ssl.SSLContext:
    """One context for all connections. Reading the system's certificates takes tens of milliseconds, and every call of
    this loop would wait that long at each connection."""
    return ssl.create_default_context()


def refusal_of(error: ServerError) -> Refusal:
    """The Refusal that an `error` instead of `connected` stands for."""
    said = ": ".join(part for part in (error.title, error.message) if part)
    status = "" if error.status_code is None else f" ({error.status_code})"
    return Refusal(error.status_code, plain(said or "it does not say why") + status)


def _said(body: bytes) -> str:
    """The sentence in a refused upgrade's body: JSON's title and message, or the text as it is; of a page, nothing."""
    try:
        members = msgspec.json.decode(body)
        parts = [members[name] for name in ("title", "message") if isinstance(members.get(name), str)]
    except (msgspec.DecodeError, UnicodeError, AttributeError, RecursionError):
        parts = []
    if parts:
        return plain(": ".join(parts))
    text = body.decode(errors="replace").strip()
    return "" if "<" in text else plain(text)
