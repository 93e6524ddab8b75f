"""A web server on this machine whose answers a test sets, wrong ones among them."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Answer:
    """What is sent for one address."""

    body: bytes = b""
    status: int = 200
    promised: int | None = None  # Content-Length, where it is not the length of the body
    location: str = ""  # where a redirect leads


class LocalServer:
    """Answers per path; several are given one by one, the last one from then on."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[str] = []

    def serve(self, path: str, *answers: Answer | bytes) -> str:
        """Set what `path` answers and return its address."""
        self.answers[path] = [Answer(answer) if isinstance(answer, bytes) else answer for answer in answers]
        return self.root + path

    def take(self, path: str) -> Answer:
        self.requests.append(path)
        waiting = self.answers.get(path, [Answer(b"not here", status=404)])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


@contextlib.contextmanager
def running() -> Iterator[LocalServer]:
    """Run a server for the length of the block."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = local.take(self.path.partition("?")[0])
            self.send_response(answer.status)
            length = len(answer.body) if answer.promised is None else answer.promised
            self.send_header("Content-Length", str(length))
            if answer.location:
                self.send_header("Location", answer.location)
            self.end_headers()
            with contextlib.suppress(OSError):  # a client that gives up is part of some tests
                self.wfile.write(answer.body)

        def log_message(self, *_arguments) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    local = LocalServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield local
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
