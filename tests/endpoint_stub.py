"""An OpenAI-compatible server that behaves as told: well, or in one of the ways in which such servers misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answerer = Callable[[dict[str, Any]], str]
Behaviour = Callable[[int, dict[str, Any]], str]
"""(number of the request from 0, body) -> "ok", or the misbehaviour."""


class Stub(ThreadingHTTPServer):
    """`answer` gives the text of good answers; `behave` says what happens to each request. `bodies` has all of them."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, answer: Answerer, behave: Behaviour = lambda number, body: "ok") -> None:
        self.answer, self.behave = answer, behave
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Stub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        stub = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with stub.lock:
            number = len(stub.bodies)
            stub.bodies.append(body)
            stub.headers.append(dict(self.headers.items()))
        how = stub.behave(number, body)
        if how.isdigit():
            headers = {"Retry-After": "0.05"} if how == "429" else {}
            said = json.dumps({"error": {"message": "no", "you_sent": self.headers.get("Authorization")}}).encode()
            self._send(int(how), said, headers)
            return
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        if how == "hang":
            stub.closing.wait(30)
            return
        text = stub.answer(body)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        usage: Any = {"prompt_tokens": len(json.dumps(body["messages"])) // 4, "completion_tokens": len(text) // 4 + 1}
        usage |= {"total_tokens": sum(usage.values())}
        reason = "stop"
        if how == "half content":
            message["content"] = text[: len(text) // 2]
        elif how == "wrong schema":
            message["content"] = '{"something": "else"}'
        elif how == "prose":
            message["content"] = f"Of course! Here it is: {text}"
        elif how == "no content":
            message["content"] = None
        elif how == "refuse":
            message |= {"content": None, "refusal": "I cannot help with that."}
        elif how == "cut":
            message["content"], reason = text[: len(text) // 2], "length"
        elif how == "filter":
            reason = "content_filter"
        elif how == "usage huge":
            usage = {"prompt_tokens": 10**15, "completion_tokens": 10**15}
        elif how == "usage odd":
            usage = {"prompt_tokens": -5, "completion_tokens": "many"}
        elif how == "no usage":
            usage = None
        reply = {
            "id": "1",
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        }
        whole = json.dumps(reply | ({"usage": usage} if usage is not None else {})).encode()
        if how == "half json":
            self._send(200, whole[: len(whole) // 2])
        elif how == "short body":  # announces more than it sends
            self._send(200, whole[:-20], {"Content-Length": str(len(whole))})
        elif how == "not json":
            self._send(200, b"<html>gateway</html>")
        elif how == "no choices":
            self._send(200, b'{"choices": []}')
        elif how == "surrogate":
            self._send(200, json.dumps({"choices": [{"message": {"content": "\ud800"}}]}).encode())
        elif how == "drip":
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            for byte in whole:
                if stub.closing.wait(0.1):
                    return
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        elif how == "redirect":
            self._send(302, b"", {"Location": "http://127.0.0.1:1/v1/chat/completions"})
        else:
            assert how == "ok" or how.startswith("usage") or how in KNOWN, how
            self._send(200, whole)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


KNOWN = ("half content", "wrong schema", "prose", "no content", "refuse", "cut", "filter", "no usage")


@contextlib.contextmanager
def serving(answer: Answerer, behave: Behaviour = lambda number, body: "ok") -> Iterator[Stub]:
    """A stub that answers on a free port until the block ends."""
    stub = Stub(answer, behave)
    thread = threading.Thread(target=stub.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.closing.set()
        stub.shutdown()
        stub.server_close()
        thread.join(5)


def settings(url: str, **changes: Any) -> dict[str, Any]:
    """Settings of an endpoint for a test: local and free."""
    return {
        "base_url": url, "model": "stub", "key_env": None, "concurrency": 8, "timeout_s": 60.0, "attempts": 3,
        "retries": 1000, "structured": "schema", "prompt_price": 0.0, "completion_price": 0.0, "max_cost": None,
        "max_total_tokens": None, "cache": None, "extra": {},
    } | changes  # fmt: skip


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Until the condition holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
