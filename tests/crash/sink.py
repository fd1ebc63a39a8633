"""The world outside: an HTTP server that records every call it gets, and can undo none of them."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Call(NamedTuple):
    """One call, as it came in."""

    op: str
    key: str
    """The idempotency key; whoever really kept one row a key would drop a second call."""
    run: str
    attempt: int
    pid: int


class Sink(ThreadingHTTPServer):
    """Serves in a thread of this process; a call is recorded before it is answered."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def record(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def take(self) -> list[Call]:
        """What came in since this was last asked."""
        with self._lock:
            calls, self._calls = self._calls, []
        return calls

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller was killed in the middle of its call."""

    def __enter__(self) -> Sink:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.record(Call(**json.loads(body)))
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to say."""
