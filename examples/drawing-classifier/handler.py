"""Answers requests: a drawing is 64 greys from 0 to 16, row by row, as JSON."""

import json

import torch
from ts.torch_handler.base_handler import BaseHandler


class DrawingHandler(BaseHandler):
    """Digits with their probability; explained by what each pixel adds."""

    def preprocess(self, data: list[dict]) -> torch.Tensor:
        """A batch of requests as one tensor."""
        rows = []
        for request in data:
            body = request.get("body") or request.get("data") or request  # on an endpoint it is the instance itself
            if isinstance(body, (bytes, bytearray)):
                body = json.loads(body)
            rows.append(torch.tensor(body["drawing"], dtype=torch.float32).reshape(1, 8, 8) / 16)
        return torch.stack(rows).to(self.device)

    def postprocess(self, data: torch.Tensor) -> list[dict]:
        """An answer for each request."""
        chances = data.softmax(1)
        return [{"digit": int(p.argmax()), "probability": float(p.max())} for p in chances]

    def explain_handle(self, data_preprocess: torch.Tensor, raw_data: list[dict]) -> list[dict]:
        """Gradient times input of the digit that is seen, as 8 rows of 8."""
        x = data_preprocess.clone().requires_grad_()
        scores = self.model(x)
        scores.max(1).values.sum().backward()
        share = (x.grad * x)[:, 0]
        return [{"digit": int(s.argmax()), "pixels": p.tolist()} for s, p in zip(scores, share, strict=True)]
