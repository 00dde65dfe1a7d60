"""A model server that is bad in the way that its argument says."""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOW = sys.argv[1]


class Handler(BaseHTTPRequestHandler):
    """Echoes instances, unless it is to be bad."""

    protocol_version = "HTTP/1.1"
    count = 0
    lock = threading.Lock()

    def do_GET(self):
        """Healthy always."""
        self.answer(200, {})

    def do_POST(self):
        """Predictions."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Handler.lock:
            Handler.count += 1
            n = Handler.count
        if HOW == "fails" or HOW == "fails half" and n % 2:
            self.answer(500, {"error": "no weights"})
        elif HOW == "refuses":
            self.answer(400, {"error": "expected 5 features"})
        else:
            if HOW == "hangs":
                time.sleep(3600)
            if HOW == "slow":
                time.sleep(0.4)
            more = 1 if HOW == "differs" else 0
            self.answer(200, {"predictions": [x + more for x in request["instances"]]})

    def answer(self, status, content):
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["AIP_HTTP_PORT"])), Handler)
server.daemon_threads = True
server.serve_forever()
