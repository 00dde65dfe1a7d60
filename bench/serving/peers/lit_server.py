"""The model in LitServe."""

import sys

import litserve
from common import load


class Model(litserve.LitAPI):
    """Rows in, predictions out."""

    def setup(self, device):
        """Load the model in the worker."""
        self.rows = load()

    def decode_request(self, request):
        """Take the rows."""
        return request["instances"]

    def predict(self, rows):
        """Answer one prediction for each row."""
        return self.rows(rows)

    def encode_response(self, output):
        """Put them into an answer."""
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(Model(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
