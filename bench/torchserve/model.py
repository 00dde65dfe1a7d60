"""Makes the model that is measured: a small network over images of 8 x 8, by the
unmodified torch-model-archiver. Run with the folder of the model store."""

import os
import subprocess
import sys

import torch

NETWORK = """
import torch


class Digits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(256, 10),
        )

    def forward(self, x):
        return self.layers(x)
"""

HANDLER = """
import torch
from ts.torch_handler.base_handler import BaseHandler


class Handler(BaseHandler):
    def preprocess(self, data):
        rows = [row.get("body") or row.get("data") for row in data]
        return torch.tensor([row["instances"][0] for row in rows]).reshape(-1, 1, 8, 8)

    def postprocess(self, output):
        return [{"predictions": [int(n)]} for n in output.argmax(1)]
"""

store = os.path.abspath(sys.argv[1])
os.chdir(store)
for name, text in (("network.py", NETWORK), ("handler.py", HANDLER)):
    with open(name, "w") as f:
        f.write(text)
sys.path.insert(0, store)
from network import Digits  # noqa: E402

torch.manual_seed(1)
torch.save(Digits().state_dict(), "digits.pt")
archiver = os.path.join(os.path.dirname(sys.executable), "torch-model-archiver")
subprocess.run([sys.executable, archiver, "--model-name", "digits", "--version", "1.0", "--model-file", "network.py", "--serialized-file", "digits.pt",
                "--handler", "handler.py", "--export-path", ".", "--force"], check=True)
