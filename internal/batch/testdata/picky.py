"""A model server that fails over requests with a bad instance."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers 500 when one of the instances is "fail"."""

    def do_GET(self):
        self.answer(200, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        instances = json.loads(body)["instances"]
        if "fail" in instances:
            self.answer(500, {"error": "one of them is bad"})
        else:
            self.answer(200, {"predictions": instances})

    def answer(self, status, content):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


port = int(os.environ["AIP_HTTP_PORT"])
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
