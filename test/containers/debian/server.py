"""What the image of Debian packages runs; it does what rustserver does.

Without arguments it is a model server by the rules of Vertex AI; with `sum IN OUT`
a task that adds up the numbers of a file.
"""

import json
import os
import sys
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WEIGHTS = [1, 2, 3, 4]


class Handler(BaseHTTPRequestHandler):
    """GET /health and POST /predict."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer health checks."""
        self.answer(200 if self.path == "/health" else 404, b"ok")

    def do_POST(self) -> None:
        """Predict for JSON, count anything else."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.headers.get("Content-Type", "").startswith("application/json"):
            self.answer(200, f"{len(body)} {zlib.adler32(body)}".encode())
            return
        rows = json.loads(body)["instances"]
        scores = [sum(w * x for w, x in zip(WEIGHTS, row)) for row in rows]
        self.answer(200, json.dumps({"predictions": scores}).encode())

    def answer(self, status: int, body: bytes) -> None:
        """Send a whole answer."""
        self.send_response(status)
        json_ = body.startswith(b"{")
        self.send_header("Content-Type", "application/json" if json_ else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve, or do a task."""
    if len(sys.argv) == 4 and sys.argv[1] == "sum":
        total = sum(map(float, Path(sys.argv[2]).read_text().split()))
        Path(sys.argv[3]).write_text(f"{total:g}")
        return
    port = int(os.environ["AIP_HTTP_PORT"])
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
