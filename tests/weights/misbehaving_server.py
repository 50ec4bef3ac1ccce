"""An HTTP server on this machine that misbehaves as it is told."""

import hashlib
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

CONTENT = np.random.default_rng(0).bytes(700_000)
DIGITS = hashlib.sha256(CONTENT).hexdigest()
NAME = f"net-{DIGITS[:8]}.pth"


class Server:
    """Serves `content` under every path. The attributes are its misbehaviour; `requests` what came in."""

    def __init__(self, content=CONTENT):
        self.content, self.requests = content, []
        self.ranges = True  # honour Range
        self.cut = None  # close the connection after that many bytes of the body
        self.status = None  # answer with this status
        self.location = None  # redirect there
        self.length = True  # say Content-Length
        self.shift = 0  # answer a Range from another byte than asked
        self.claim = None  # say this Content-Length
        self.gate = None  # wait for this event before the body
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True

    def url(self, name=NAME):
        return f"http://127.0.0.1:{self.http.server_port}/models/{name}"

    def answer(self, request):
        self.requests.append(dict(request.headers))
        if self.location and "moved" not in request.path:
            return self.reply(request, 302, {"Location": self.location})
        if self.status:
            return self.reply(request, self.status, {})
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", "")) if self.ranges else None
        start = int(asked[1]) if asked else 0
        if start > len(self.content) or (asked and start == len(self.content)):
            return self.reply(request, 416, {"Content-Range": f"bytes */{len(self.content)}"})
        body = self.content[start:]
        headers = {"Content-Length": str(self.claim or len(body))} if self.length else {}
        if asked:
            first = start + self.shift
            headers["Content-Range"] = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
        self.reply(request, 206 if asked else 200, headers)
        if self.gate:
            self.gate.wait(60)
        request.wfile.write(body if self.cut is None else body[: self.cut])

    @staticmethod
    def reply(request, status, headers):
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
