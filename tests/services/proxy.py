"""A proxy on loopback before an S3 or MLflow server, which does to answers what networks and servers do."""

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>[b]$\\frac{1}{$</form></body></html>"


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        proxy = self.server.proxy
        path = urlsplit(self.path)
        name = "LIST" if "list-type=2" in path.query else f"{self.command} {unquote(path.path).split('/', 2)[-1]}"
        self.content = self.read_content()
        proxy.requests.append(name)
        fault = next(proxy.faults.get(name, iter(())), None)
        if fault is not None:
            fault(self)
        else:
            self.reply(self.forward())

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def read_content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def forward(self) -> Answer:
        # With the client's own Host, which it signed.
        connection = http.client.HTTPConnection(self.server.proxy.upstream, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for header, value in self.headers.items():
                if header.lower() not in ("transfer-encoding", "content-length"):
                    connection.putheader(header, value)
            if self.content or self.command in ("POST", "PUT"):
                connection.putheader("Content-Length", str(len(self.content)))
            connection.endheaders(self.content or None)
            response = connection.getresponse()
            hop = {"connection", "transfer-encoding"}
            headers = [(header, value) for header, value in response.getheaders() if header.lower() not in hop]
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()

    def reply(self, answer: Answer, *, cut_after: int | None = None) -> None:
        self.send_response_only(answer.status)
        for header, value in answer.headers:
            if header.lower() != "content-length" or self.command == "HEAD":
                self.send_header(header, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:cut_after])
        if cut_after is not None:
            self.wfile.flush()
            self.reset()

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: "Proxy"

    def handle_error(self, *_: object) -> None:  # clients that gave up
        pass


Fault = Callable[[Handler], None]


@dataclass
class Proxy:
    """Requests in order (`LIST`, `GET key`, `HEAD key`), and iterators of faults by such names."""

    endpoint: str
    upstream: str
    requests: list[str] = field(default_factory=list)
    faults: dict[str, Iterator[Fault]] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def plan(self, name: str, faults: Iterable[Fault]) -> None:
        self.faults[name] = iter(faults)

    def gets(self) -> list[str]:
        """Keys of objects that were asked for since this was last called."""
        keys = [name.removeprefix("GET ") for name in self.requests if name.startswith("GET ")]
        self.requests.clear()
        return keys


@contextmanager
def proxy_to(endpoint: str) -> Iterator[Proxy]:
    server = Server(("127.0.0.1", 0), Handler)
    server.proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}", urlsplit(endpoint).netloc)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.proxy
    finally:
        server.proxy.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def whole(handler: Handler) -> None:
    handler.reply(handler.forward())


def shortened(handler: Handler) -> None:
    """A shorter body, and the length says so."""
    answer = handler.forward()
    handler.reply(Answer(answer.status, answer.headers, answer.body[:-7]))


def flipped(handler: Handler) -> None:
    """One bit differs."""
    answer = handler.forward()
    middle = len(answer.body) // 2
    body = answer.body[:middle] + bytes([answer.body[middle] ^ 1]) + answer.body[middle + 1 :]
    handler.reply(Answer(answer.status, answer.headers, body))


def login_page(handler: Handler) -> None:
    handler.reply(Answer(200, [("Content-Type", "text/html")], LOGIN))


def slow_down(handler: Handler) -> None:
    body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate: AKIDSECRET</Message></Error>"
    handler.reply(Answer(503, [("Content-Type", "application/xml")], body))


def error_500(handler: Handler) -> None:
    handler.reply(Answer(500, [("Content-Type", "text/html")], b"<html>\n<h1>Internal Server Error</h1></html>"))


def done_but_500(handler: Handler) -> None:
    handler.forward()
    error_500(handler)


def slow(handler: Handler) -> None:
    time.sleep(0.7)
    handler.reply(handler.forward())


def late(handler: Handler) -> None:
    """The answer comes when a client of little patience has gone."""
    answer = handler.forward()
    time.sleep(1.5)
    handler.reply(answer)


def reset(handler: Handler) -> None:
    handler.reset()


def cut_off(handler: Handler) -> None:
    """The connection is reset in the middle of the body."""
    answer = handler.forward()
    handler.reply(answer, cut_after=len(answer.body) // 2)


def hanging(handler: Handler) -> None:
    handler.server.proxy.ended.wait(30)
    handler.close_connection = True


def opaque(handler: Handler) -> None:
    """As of objects behind a gateway that knows no checksums and has ETags of its own."""
    answer = handler.forward()
    body = re.sub(rb"<ETag>[^<]*</ETag>", b"<ETag>&quot;0x8D4B2AE97754E88&quot;</ETag>", answer.body)
    kept = [(name, value) for name, value in answer.headers if not re.match("x-amz-checksum|etag", name, re.I)]
    handler.reply(Answer(answer.status, [*kept, ("ETag", '"0x8D4B2AE97754E88"')], body))


def saying(answer: Answer) -> Fault:
    """The same answer whatever is asked."""
    return lambda handler: handler.reply(answer)


def after(change: Callable[[], object], then: Fault = whole) -> Fault:
    """Something happens between request and answer."""

    def fault(handler: Handler) -> None:
        change()
        then(handler)

    return fault
