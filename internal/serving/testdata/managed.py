"""Stands in for a replica of TorchServe: its models are a list of URLs."""

import base64
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "/.tategu/management"
KEY = os.environ["TATEGU_MANAGEMENT_KEY"]
BASE = ["base"]
models = list(BASE)
told = set()
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, value):
        body = b"" if status == 204 else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/ping":
            return self.answer(200, {})
        self.manage()

    def do_PUT(self):
        """Becomes what the body says. A model "refused-once" is not taken at first."""
        global models
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("X-Tategu-Management-Key") != KEY or self.path != PREFIX:
            return self.answer(404, {})
        with lock:
            wanted = json.loads(body) if body else list(BASE)
            if "refused-once" in wanted and "refused-once" not in models and "refused-once" not in told:
                told.add("refused-once")
                return self.answer(500, "not now")
            models = wanted
        self.answer(204, None)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/predictions/model":
            import time

            time.sleep(0.02)  # so that others go elsewhere
            return self.answer(200, {"predictions": [{"models": models, "pid": os.getpid()} for _ in json.loads(body)["instances"]]})
        self.manage()

    def manage(self):
        if self.headers.get("X-Tategu-Management-Key") != KEY:
            return self.answer(404, {})
        with lock:
            status = 200
            if self.command == "POST":
                url = self.path.partition("url=")[2]
                if url == "bad":
                    status = 400
                else:
                    models.append(url)
            if self.path.startswith(PREFIX + "/metrics"):
                text = f'# HELP Seen Things seen.\n# TYPE Seen gauge\nSeen{{Level="Host",}} {len(models)}.0\n# HELP None Nothing.\n# TYPE None gauge\n'
                return self.answer(200, {"status": 200, "contentType": "text/plain", "body": base64.b64encode(text.encode()).decode(), "state": None})
            text = json.dumps({"path": self.path.removeprefix(PREFIX), "models": models}).encode()
            self.answer(200, {"status": status, "contentType": "application/json", "body": base64.b64encode(text).decode(), "state": models})

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
sys.exit(1)
