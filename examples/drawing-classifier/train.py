"""Trains the network on the drawings that scikit-learn ships; nothing is downloaded.

    python train.py OUT

writes OUT/digits.pt, and OUT/test.jsonl: drawings that were not trained on, with their digit.
"""

import json
import sys
from pathlib import Path

import torch
from network import Digits
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main() -> None:
    """Train, tell the share of drawings that are read rightly, and write the files."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    drawings, digits = load_digits(return_X_y=True)
    train, test, wanted, answers = train_test_split(drawings, digits, test_size=400, random_state=1, stratify=digits)
    x = torch.tensor(train, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(wanted)
    network = Digits()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(20):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        seen = network(torch.tensor(test, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16).argmax(1)
    torch.save(network.state_dict(), out / "digits.pt")
    with open(out / "test.jsonl", "w") as f:
        for drawing, digit in zip(test, answers, strict=True):
            f.write(json.dumps({"drawing": drawing.tolist(), "digit": int(digit)}) + "\n")
    print(f"accuracy={(seen.numpy() == answers).mean():.3f}")


if __name__ == "__main__":
    main()
