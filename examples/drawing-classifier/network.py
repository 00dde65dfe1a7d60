"""The network: two convolutions over 8x8 greys, and a layer that tells ten digits apart."""

import torch
from torch import nn


class Digits(nn.Module):
    """Scores of the ten digits for drawings of shape (N, 1, 8, 8), from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10)
        )

    def forward(self, drawings: torch.Tensor) -> torch.Tensor:
        """Scores, one row a drawing."""
        return self.layers(drawings)
