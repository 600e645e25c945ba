"""A web server on this machine for tests of downloads: it serves parts, breaks off, lies and changes its mind."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Resource:
    """What lies at an address, and how badly it is served.

    `breaks` holds, for each of the next answers, after how many bytes the connection is cut; `statuses` holds
    codes that are answered first, in place of the content.
    """

    content: bytes
    etag: str | None = "by hash"
    ranges: bool = True
    length: bool = True
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def tag(self) -> str | None:
        return f'"{hashlib.md5(self.content).hexdigest()}"' if self.etag == "by hash" else self.etag


@dataclass
class Server:
    """Addresses of `files` begin with `url`; `log` holds (path, Range header) of every request."""

    url: str
    files: dict[str, Resource] = field(default_factory=dict)
    log: list[tuple[str, str | None]] = field(default_factory=list)

    def put(self, path: str, content: bytes, **how: object) -> str:
        """Serves `content` at an address, which it returns."""
        self.files[path] = Resource(content, **how)  # type: ignore[arg-type]
        return f"{self.url}/{path}"


@contextmanager
def serve() -> Iterator[Server]:
    """A server that runs until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, server)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def answer(request: BaseHTTPRequestHandler, server: Server) -> None:
    """As RFC 9110 wants it (sections 13.1.5 and 14), but for what the resource is told to do wrong."""
    path, wanted = request.path.lstrip("/"), request.headers.get("Range")
    server.log.append((path, wanted))
    resource = server.files.get(path)
    request.close_connection = True
    if resource is None or resource.statuses:
        request.send_response(404 if resource is None else resource.statuses.pop(0))
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    whole = len(resource.content)
    start = int(m[1]) if wanted and resource.ranges and (m := re.fullmatch(r"bytes=(\d+)-", wanted)) else 0
    if request.headers.get("If-Range") not in (None, resource.tag):
        start = 0
    if start >= whole and start:
        request.send_response(416)
        request.send_header("Content-Range", f"bytes */{whole}")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    request.send_response(206 if start else 200)
    if start:
        request.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
    if resource.length:
        request.send_header("Content-Length", str(whole - start))
    if resource.tag:
        request.send_header("ETag", resource.tag)
    request.end_headers()
    body = resource.content[start:]
    request.wfile.write(body[: resource.breaks.pop(0)] if resource.breaks else body)
