"""The server that a team writes first: FastAPI, in its fastest form, in the loop."""

from common import load
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
predict_rows = load()


class Request(BaseModel):
    """Rows of numbers."""

    instances: list[list[float]]


@app.get("/health")
async def health():
    """Say that it lives."""
    return {}


@app.post("/predict")
async def predict(request: Request):
    """Answer one prediction for each row."""
    return {"predictions": predict_rows(request.instances)}
