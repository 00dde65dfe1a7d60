"""kill -9 of the server at seeded moments while datapoints are upserted, removed and merged.

Four writers change datapoints of their own over the API and note what was acknowledged.
After each kill the server starts again on its data, and everything is read: what was
acknowledged is there as it was told last, and every id is there once. Only a change
whose answer never came may be there or not, as a whole.
"""

import argparse
import http.client
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server import Server

DIMS = 640  # so that each merge is worth a process of its own
IDS = 150  # of each writer
PROJECT = "/v1/projects/p/locations/us-central1"
CONFIG = "vectors: {mergeAt: 60}\n"
if DSN := os.environ.get("TATEGU_TEST_PGVECTOR_DSN"):  # datapoints are there then
    CONFIG = f"vectors: {{backend: pgvector, pgvector: {{dsn: {json.dumps(DSN)}, schema: kills_{uuid.uuid4().hex[:8]}}}}}\n"


class Client:
    """One connection, made anew after each failure."""

    def __init__(self, address: str):
        self.address = address
        self.conn: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: dict | None = None) -> bytes:
        """Give the answer's body; whatever goes wrong is an OSError or HTTPException."""
        if self.conn is None:
            self.conn = http.client.HTTPConnection(self.address, timeout=30)
        try:
            self.conn.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
            answer = self.conn.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            self.conn = None
            raise
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]!r}")
        return data


class Writer:
    """Changes its own ids, and knows what it was told of each."""

    def __init__(self, name: str, seed: int):
        self.name = name
        self.rng = random.Random(seed)
        self.value = 0
        self.acked: dict[str, float | None] = {}  # None = removed
        self.open: dict[str, float | None] = {}  # changes whose answer never came
        self.count = 0

    def run(self, address: str, index: str, stop: threading.Event) -> None:
        """Change datapoints until the server dies."""
        client = Client(address)
        while not stop.is_set():
            ids = self.rng.sample(range(IDS), self.rng.randint(1, 20))
            names = [f"{self.name}-{i}" for i in ids]
            if self.rng.random() < 0.25:
                change: dict[str, float | None] = dict.fromkeys(names)
                path, body = "removeDatapoints", {"datapointIds": names}
            else:
                self.value += 1
                change = dict.fromkeys(names, float(self.value))
                vector = [float(self.value)] + [1.0] * (DIMS - 1)
                path, body = "upsertDatapoints", {"datapoints": [{"datapointId": n, "featureVector": vector} for n in names]}
            self.open = change
            try:
                client.call("POST", f"/v1/{index}:{path}", body)
            except (OSError, http.client.HTTPException):
                return
            self.acked.update(change)
            self.open = {}
            self.count += len(names)

    def check(self, found: dict[str, float]) -> list[str]:
        """Compare what is there with what was told, and take it over."""
        wrong = []
        # A change is whole: of what one request would make different all is there or nothing.
        told = {name for name, value in self.open.items() if self.acked.get(name) != value}
        took = {name for name in told if found.get(name) == self.open[name]}
        if took and took != told:
            wrong.append(f"of an open change only {len(took)} of {len(told)} are there")
        for i in range(IDS):
            name = f"{self.name}-{i}"
            have, want = found.get(name), self.acked.get(name)
            if have != want and not (name in self.open and have == self.open[name]):
                wrong.append(f"{name} is {have}, told was {want}, open {self.open.get(name, 'nothing')}")
            self.acked[name] = have
        self.open = {}
        return wrong


def read_all(client: Client, index: str) -> dict[str, float]:
    """Read every datapoint; an id that comes twice is an error."""
    found: dict[str, float] = {}
    after = ""
    while True:
        lines = client.call("GET", f"/tategu/v1/index/datapoints?index={index}&after={after}&limit=1000").splitlines()
        for line in lines:
            point = json.loads(line)
            after = point["datapointId"]
            if after in found:
                raise SystemExit(f"vector-kills: {after} is there twice")
            found[after] = point["featureVector"][0]
        if len(lines) < 1000:
            return found


def find_all(client: Client, endpoint: str) -> list[str]:
    """Give the ids that a query of everything finds."""
    query = {"datapoint": {"featureVector": [0.0] * DIMS}, "neighborCount": 10000}
    answer = json.loads(client.call("POST", f"/v1/{endpoint}:findNeighbors", {"deployedIndexId": "kills", "queries": [query]}))
    return [n["datapoint"]["datapointId"] for n in answer["nearestNeighbors"][0].get("neighbors", [])]


def prepare(client: Client) -> tuple[str, str]:
    """Make the index and deploy it."""
    config = {"dimensions": DIMS, "distanceMeasureType": "SQUARED_L2_DISTANCE", "algorithmConfig": {"bruteForceConfig": {}}}
    made = json.loads(client.call("POST", f"{PROJECT}/indexes", {"displayName": "kills", "metadata": {"config": config}}))
    index = made["response"]["name"]
    made = json.loads(client.call("POST", f"{PROJECT}/indexEndpoints", {"displayName": "kills", "publicEndpointEnabled": True}))
    endpoint = made["response"]["name"]
    client.call("POST", f"/v1/{endpoint}:deployIndex", {"deployedIndex": {"id": "kills", "index": index}})
    return index, endpoint


def main() -> None:
    """Run the rounds."""
    args = argparse.ArgumentParser()
    args.add_argument("--kills", type=int, default=50)
    args.add_argument("--seed", type=int, default=1)
    asked = args.parse_args()
    rng = random.Random(asked.seed)
    writers = [Writer(f"w{n}", asked.seed * 100 + n) for n in range(4)]
    index = endpoint = ""
    merges = 0
    with tempfile.TemporaryDirectory(prefix="tategu-vector-kills-") as folder:
        for kill in range(asked.kills + 1):
            server = Server(Path(folder), CONFIG)
            client = Client(server.address)
            if not index:
                index, endpoint = prepare(client)
            found = read_all(client, index)
            wrong = [text for w in writers for text in w.check(found)]
            by_query = find_all(client, endpoint)
            if sorted(by_query) != sorted(found):
                wrong.append(f"a query finds {len(by_query)} datapoints, a scan {len(found)}")
            if wrong:
                server.stop()
                print("\n".join(wrong[:20]))
                raise SystemExit(f"vector-kills: {len(wrong)} wrong after kill {kill} (seed {asked.seed})")
            info = json.loads(client.call("GET", f"/tategu/v1/index?index={index}"))
            merges += info["segments"] > 0
            if kill == asked.kills:
                server.stop()
                break
            stop = threading.Event()
            threads = [threading.Thread(target=w.run, args=(server.address, index, stop)) for w in writers]
            for t in threads:
                t.start()
            time.sleep(rng.uniform(0.05, 1.0))  # the moment of the kill
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            stop.set()
            for t in threads:
                t.join()
    acked = sum(w.count for w in writers)
    if acked == 0 or merges == 0:
        raise SystemExit("vector-kills: nothing was acknowledged, or nothing merged")
    print(f"vector-kills: ok kills={asked.kills} acked={acked} lost=0 doubled=0 starts_with_segments={merges}")


if __name__ == "__main__":
    main()
