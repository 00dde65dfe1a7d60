"""A model server that echoes, with nothing but the standard library.

As a server it speaks the custom container contract: it listens on AIP_HTTP_PORT
and answers AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE, where the predictions are the
instances. With `"stream": true` in the parameters it answers one JSON line per
instance, in chunks. Without AIP_HTTP_PORT it is a job: it prints its arguments
and ends.
"""

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers health checks and predictions."""

    protocol_version = "HTTP/1.1"
    health = os.environ.get("AIP_HEALTH_ROUTE") or "/health"

    def do_GET(self) -> None:
        """Health, at its route only."""
        path = self.path.partition("?")[0]
        self.answer(200 if path == self.health else 404, {})

    def do_POST(self) -> None:
        """Predictions; any route, so that arbitrary custom routes work too."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            request = json.loads(body)
            instances = request["instances"]
        except (ValueError, TypeError, KeyError) as error:
            self.answer(400, {"error": f"want JSON with instances: {error!r}"})
            return
        parameters = request.get("parameters") or {}
        if isinstance(parameters, dict) and parameters.get("stream"):
            self.stream(instances)
        else:
            self.answer(200, {"predictions": instances})

    def answer(self, status: int, content: dict[str, Any]) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, instances: list[Any]) -> None:
        """Send one line per instance, each in a chunk of its own."""
        self.send_response(200)
        self.send_header("Content-Type", "application/jsonl")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for instance in instances:
            line = json.dumps({"predictions": [instance]}).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Log to stdout, at once."""
        print(format % args, flush=True)


def serve(port: int) -> None:
    """Serve until SIGTERM."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True

    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    print(f"echo listens on port {port}", flush=True)
    server.serve_forever()
    server.server_close()


def main() -> None:
    """Serve when started as a replica, else be a job."""
    if port := os.environ.get("AIP_HTTP_PORT"):
        serve(int(port))
    else:
        print("echo job:", json.dumps(sys.argv[1:]), flush=True)


if __name__ == "__main__":
    main()
