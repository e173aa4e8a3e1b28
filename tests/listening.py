"""Local servers that really receive what is sent to people: a webhook, and an SMTP server that takes every mail."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Inbox:
    """What came in: (subject, body) each. The next `refusals` messages are refused."""

    url: str = ""  # as Apprise wants it
    messages: list[tuple[str, str]] = field(default_factory=list)
    refusals: int = 0

    @property
    def subjects(self) -> list[str]:
        return [subject for subject, _ in self.messages]


@contextmanager
def webhook() -> Iterator[Inbox]:
    """A web server that takes Apprise's JSON."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if inbox.refusals:
                inbox.refusals -= 1
                self.send_response(503)
            else:
                inbox.messages.append((content["title"], content["message"]))
                self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        inbox.url = f"json://127.0.0.1:{port}/hook"
        yield inbox


@contextmanager
def mail_server() -> Iterator[Inbox]:
    """An SMTP server: just enough of RFC 5321 for a client that authenticates by nothing."""
    inbox = Inbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline().strip().upper():
                if line.startswith(b"DATA"):
                    self.wfile.write(b"354 go on\r\n")
                    self._receive()
                self.wfile.write(b"221 bye\r\n" if line == b"QUIT" else b"250 ok\r\n")

        def _receive(self) -> None:
            lines = list(iter(self.rfile.readline, b".\r\n"))
            mail = message_from_bytes(b"".join(lines), policy=policy.default)
            part = mail.get_body()
            inbox.messages.append((str(mail["Subject"]), part.get_content() if part else ""))

    with _serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        inbox.url = f"mailto://127.0.0.1:{port}?from=ratchet@example.org&to=ops@example.org&format=text"
        yield inbox


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
