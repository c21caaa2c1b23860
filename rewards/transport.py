"""One HTTP POST with a deadline that holds for the whole exchange, also against a server that sends a byte a second."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

LONGEST_REPLY = 8 * 2**20
"""Bytes; a longer reply is a fault."""


@dataclass(frozen=True, slots=True)
class Target:
    """A base URL, taken apart; `proxy` is the (host, port) that the environment names for it, or None."""

    secure: bool
    host: str
    port: int
    path: str
    proxy: tuple[str, int] | None

    @staticmethod
    def of(base_url: str) -> Target:
        """Raises ValueError, in words, for what is no http or https address."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be http://HOST[:PORT]/PATH or https://...")
        if parts.username or parts.password:
            raise ValueError("must hold no user or password; name the key's variable in key_env")
        if parts.query or parts.fragment:
            raise ValueError("must end with the path")
        secure = parts.scheme == "https"
        proxy = None
        named = getproxies().get(parts.scheme)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if named and not local and not proxy_bypass(parts.hostname):
            there = urlsplit(named if "://" in named else f"http://{named}")
            proxy = (there.hostname, there.port or 80) if there.hostname else None
        return Target(secure, parts.hostname, parts.port or (443 if secure else 80), parts.path.rstrip("/"), proxy)


@dataclass(frozen=True, slots=True)
class Reply:
    """retry_after_s: what the server asks for, 0 where it asks for nothing."""

    status: int
    body: bytes
    retry_after_s: float


class TransportFault(Exception):
    """No whole reply. timeout: the deadline passed.  sent: the request had gone out, so that it may have cost."""

    def __init__(self, message: str, timeout: bool, sent: bool) -> None:
        super().__init__(message)
        self.timeout = timeout
        self.sent = sent


def post(target: Target, path: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Reply:
    """The whole reply to one POST. Raises TransportFault. No redirect is followed: it would carry the key away."""
    host, port = target.proxy or (target.host, target.port)
    kind = http.client.HTTPSConnection if target.secure else http.client.HTTPConnection
    connection = kind(host, port, timeout=timeout_s)
    url = target.path + path
    if target.proxy is not None and target.secure:
        connection.set_tunnel(target.host, target.port)
    elif target.proxy is not None:
        url = f"http://{target.host}:{target.port}{url}"
    late, sent = threading.Event(), False
    watch: threading.Timer | None = None
    start = time.monotonic()
    try:
        connection.connect()
        # The socket's own timeout is for each read; this one ends the exchange however slowly it drips.
        watch = threading.Timer(max(0.01, timeout_s - (time.monotonic() - start)), _cut, (connection.sock, late))
        watch.daemon = True
        watch.start()
        sent = True
        connection.request("POST", url, body, {**headers, "Connection": "close"})
        response = connection.getresponse()
        content = response.read(LONGEST_REPLY + 1)
        if late.is_set():
            raise TimeoutError
        if len(content) > LONGEST_REPLY:
            raise TransportFault(f"the reply is longer than {LONGEST_REPLY} bytes", False, True)
        whole = response.getheader("Content-Length")
        if whole is not None and whole.isdigit() and len(content) < int(whole):
            raise http.client.IncompleteRead(b"")
        return Reply(response.status, content, retry_after(response.getheader("Retry-After")))
    except (OSError, http.client.HTTPException, ValueError) as fault:
        if late.is_set() or isinstance(fault, TimeoutError):
            raise TransportFault(f"no whole reply within {timeout_s:g} s", True, sent) from None
        if isinstance(fault, ssl.SSLError):
            raise TransportFault(f"TLS: {fault.reason or fault}", False, sent) from None
        raise TransportFault(f"{type(fault).__name__}: {fault}", False, sent) from None
    finally:
        if watch is not None:
            watch.cancel()
        connection.close()


def _cut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, a number or a date; 0 for what is neither."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return seconds if 0.0 < seconds < 1e6 else 0.0
