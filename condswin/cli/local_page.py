"""A page for the person at this machine."""

import secrets
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from condswin.cli.manners import answer


def page_server(page: bytes) -> tuple[ThreadingHTTPServer, str]:
    """A server of one page on a free port of 127.0.0.1, and its address, which other users cannot guess."""
    path = f"/{secrets.token_urlsafe(16)}/"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != path:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Nothing: one reader needs no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    return server, f"http://127.0.0.1:{server.server_address[1]}{path}"


def serve_page(page: bytes, *, browser: bool) -> None:
    """Serves a page until Ctrl-C.

    Args:
        page: HTML.
        browser: Open it.
    """
    server, address = page_server(page)
    answer({"url": address}, f"{address} (until Ctrl-C)")
    if browser:
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
