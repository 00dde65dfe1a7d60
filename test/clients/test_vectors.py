"""Vector search with the unmodified SDK: indexes, endpoints, queries, streamed changes."""

import json
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform
from google.cloud.aiplatform.matching_engine.matching_engine_index_endpoint import (
    HybridQuery,
    Namespace,
    NumericNamespace,
)
from google.cloud.aiplatform_v1.types import index as types

from server import Server, binary

DIMS = 8
COLORS = ["red", "green", "blue"]


def vector(x):
    """A point on a line."""
    return [float(x), 1.0] + [0.0] * (DIMS - 2)


def record(n):
    """A datapoint as files have it."""
    return {
        "id": f"p{n}",
        "embedding": vector(n),
        "restricts": [{"namespace": "color", "allow": [COLORS[n % 3]]}],
        "numeric_restricts": [{"namespace": "size", "value_int": n}],
        "crowding_tag": str(n % 2),
        "sparse_embedding": {"values": [1.0 + n], "dimensions": [n % 4]},
        "embedding_metadata": {"title": f"point {n}"},
    }


def upload(bucket, lines, name="points.json"):
    """Put lines into a new folder of the bucket."""
    folder = uuid.uuid4().hex
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    bucket.blob(f"{folder}/{name}").upload_from_string(text)
    return f"gs://{bucket.name}/{folder}"


def ids(neighbors):
    """What was found."""
    return [n.id for n in neighbors]


@pytest.fixture
def index(mode, bucket):
    """An index of twenty points, by file."""
    made = aiplatform.MatchingEngineIndex.create_tree_ah_index(
        display_name="points",
        contents_delta_uri=upload(bucket, [record(n) for n in range(20)]),
        dimensions=DIMS,
        approximate_neighbors_count=10,
        distance_measure_type="SQUARED_L2_DISTANCE",
        leaf_node_embedding_count=500,
        leaf_nodes_to_search_percent=100,
        labels={"team": "search"},
    )
    yield made
    made.delete()


@pytest.fixture
def endpoint(mode, index):
    """An index endpoint with the index deployed as DEPLOYED."""
    made = aiplatform.MatchingEngineIndexEndpoint.create(display_name="ends", public_endpoint_enabled=True)
    made.deploy_index(index, deployed_index_id=deployed(mode))
    yield aiplatform.MatchingEngineIndexEndpoint(made.resource_name)
    made.delete(force=True)


def deployed(mode):
    """The id of the deployed index; unique in the project."""
    return f"deployed_{mode}"


def test_index_from_files(index):
    assert index.gca_resource.index_stats.vectors_count == 20
    config = index.to_dict()["metadata"]["config"]
    assert config["dimensions"] == DIMS
    assert config["algorithmConfig"]["treeAhConfig"]["leafNodeEmbeddingCount"] == 500
    assert index.labels == {"team": "search"}
    index.update_metadata(display_name="renamed", labels={"a": "b"})
    assert aiplatform.MatchingEngineIndex(index.name).display_name == "renamed"
    assert index.resource_name in [i.resource_name for i in aiplatform.MatchingEngineIndex.list()]


def test_brute_force_index_without_files(mode):
    made = aiplatform.MatchingEngineIndex.create_brute_force_index(
        display_name="empty", dimensions=DIMS, distance_measure_type="DOT_PRODUCT_DISTANCE", index_update_method="STREAM_UPDATE"
    )
    made.upsert_datapoints([types.IndexDatapoint(datapoint_id="a", feature_vector=vector(3))])
    assert aiplatform.MatchingEngineIndex(made.name).gca_resource.index_stats.vectors_count == 1
    made.delete()
    with pytest.raises(exceptions.NotFound):
        aiplatform.MatchingEngineIndex(made.name)


def test_find_by_vector_and_id(endpoint, mode):
    found = endpoint.find_neighbors(deployed_index_id=deployed(mode), queries=[vector(4.2), vector(0)], num_neighbors=3)
    assert ids(found[0]) == ["p4", "p5", "p3"]
    assert found[0][0].distance == pytest.approx(0.04, abs=1e-4)
    assert ids(found[1]) == ["p0", "p1", "p2"]
    by_id = endpoint.find_neighbors(deployed_index_id=deployed(mode), embedding_ids=["p7"], num_neighbors=3)
    assert ids(by_id[0])[0] == "p7"
    assert set(ids(by_id[0])) == {"p6", "p7", "p8"}
    with pytest.raises(exceptions.NotFound, match="no datapoint"):
        endpoint.find_neighbors(deployed_index_id=deployed(mode), embedding_ids=["nobody"])


def test_full_datapoints(endpoint, mode):
    found = endpoint.find_neighbors(
        deployed_index_id=deployed(mode), queries=[vector(4)], num_neighbors=1, return_full_datapoint=True
    )[0][0]
    assert list(found.feature_vector) == pytest.approx(vector(4))
    assert found.crowding_tag == "0"
    assert found.restricts[0].allow_tokens == ["green"]
    assert found.numeric_restricts[0].value_int == 4
    assert found.embedding_metadata == {"title": "point 4"}
    assert list(found.sparse_embedding_values) == [5.0]


def test_restricts_and_crowding(endpoint, mode):
    find = {"deployed_index_id": deployed(mode), "queries": [vector(0)], "num_neighbors": 4}
    assert ids(endpoint.find_neighbors(**find, filter=[Namespace("color", ["red"], [])])[0]) == ["p0", "p3", "p6", "p9"]
    assert ids(endpoint.find_neighbors(**find, filter=[Namespace("color", [], ["red"])])[0]) == ["p1", "p2", "p4", "p5"]
    for op, want in {
        "LESS": ["p0", "p1"],
        "LESS_EQUAL": ["p0", "p1", "p2"],
        "EQUAL": ["p2"],
        "NOT_EQUAL": ["p0", "p1", "p3", "p4"],
        "GREATER_EQUAL": ["p2", "p3", "p4", "p5"],
        "GREATER": ["p3", "p4", "p5", "p6"],
    }.items():
        numeric = [NumericNamespace(name="size", value_int=2, op=op)]
        assert ids(endpoint.find_neighbors(**find, numeric_filter=numeric)[0]) == want, op
    crowded = endpoint.find_neighbors(**find, per_crowding_attribute_neighbor_count=1)
    assert ids(crowded[0]) == ["p0", "p1"]
    wide = endpoint.find_neighbors(**find, approx_num_neighbors=20, fraction_leaf_nodes_to_search_override=1.0)
    assert ids(wide[0]) == ["p0", "p1", "p2", "p3"]


def test_hybrid(endpoint, mode):
    query = HybridQuery(
        dense_embedding=vector(0),
        sparse_embedding_dimensions=[1],
        sparse_embedding_values=[2.0],
        rrf_ranking_alpha=0.0,
    )
    found = endpoint.find_neighbors(deployed_index_id=deployed(mode), queries=[query], num_neighbors=2)[0]
    assert ids(found) == ["p17", "p13"]
    assert found[0].sparse_distance == pytest.approx(36)
    assert found[0].distance == pytest.approx(17 * 17)
    query.rrf_ranking_alpha = 1.0
    assert ids(endpoint.find_neighbors(deployed_index_id=deployed(mode), queries=[query], num_neighbors=2)[0]) == ["p0", "p1"]
    sparse = HybridQuery(sparse_embedding_dimensions=[1], sparse_embedding_values=[2.0])
    assert ids(endpoint.find_neighbors(deployed_index_id=deployed(mode), queries=[sparse], num_neighbors=1)[0]) == ["p17"]


def test_streamed_changes_are_seen_at_once(index, endpoint, mode):
    find = {"deployed_index_id": deployed(mode), "queries": [vector(100)], "num_neighbors": 1}
    index.upsert_datapoints([types.IndexDatapoint(datapoint_id="far", feature_vector=vector(100))])
    assert ids(endpoint.find_neighbors(**find)[0]) == ["far"]
    changed = types.IndexDatapoint(
        datapoint_id="far", restricts=[types.IndexDatapoint.Restriction(namespace="color", allow_list=["gold"])]
    )
    index.upsert_datapoints([changed], update_mask=["all_restricts"])
    gold = endpoint.find_neighbors(**find, filter=[Namespace("color", ["gold"], [])])
    assert ids(gold[0]) == ["far"]
    (read,) = endpoint.read_index_datapoints(deployed_index_id=deployed(mode), ids=["far"])
    assert list(read.feature_vector) == vector(100)
    assert read.restricts[0].allow_list == ["gold"]
    index.remove_datapoints(["far"])
    assert ids(endpoint.find_neighbors(**find)[0]) == ["p19"]
    with pytest.raises(exceptions.NotFound):
        endpoint.read_index_datapoints(deployed_index_id=deployed(mode), ids=["far"])
    with pytest.raises(exceptions.BadRequest, match="dimensions"):
        index.upsert_datapoints([types.IndexDatapoint(datapoint_id="x", feature_vector=[1.0])])


def test_batch_updates(index, endpoint, mode, bucket):
    find = {"deployed_index_id": deployed(mode), "queries": [vector(0)], "num_neighbors": 30}
    folder = upload(bucket, [{"id": "p0", "embedding": vector(50)}, {"id": "new", "embedding": vector(-1)}])
    bucket.blob(folder.removeprefix(f"gs://{bucket.name}/") + "/delete/gone.txt").upload_from_string("p1\np2\n")
    index.update_embeddings(contents_delta_uri=folder)
    found = ids(endpoint.find_neighbors(**find)[0])
    assert found[:2] == ["new", "p3"]
    assert found[-1] == "p0"
    assert len(found) == 19
    csv = upload(bucket, ["a,1,1,0,0,0,0,0,0,color=red,#size=3i,crowding_tag=x", "b,2,1,0,0,0,0,0,0"], "points.csv")
    index.update_embeddings(contents_delta_uri=csv, is_complete_overwrite=True)
    assert ids(endpoint.find_neighbors(**find)[0]) == ["a", "b"]
    assert ids(endpoint.find_neighbors(**find, numeric_filter=[NumericNamespace("size", 3, op="EQUAL")])[0]) == ["a"]


def test_wrong_records_are_told(index, bucket):
    lines = [record(1), "{oops", {"id": "short", "embedding": [1.0]}, "", {"embedding": vector(1)}]
    change = aiplatform.gapic.Index(
        name=index.resource_name,
        metadata={"contentsDeltaUri": upload(bucket, lines), "isCompleteOverwrite": False},
    )
    operation = index.api_client.update_index(index=change, update_mask={"paths": ["metadata"]})
    operation.result(timeout=60)
    (stats,) = operation.metadata.nearest_neighbor_search_operation_metadata.content_validation_stats
    assert (stats.valid_record_count, stats.invalid_record_count) == (1, 4)
    assert [e.error_type.name for e in stats.partial_errors] == [
        "INVALID_JSON_SYNTAX",
        "EMBEDDING_SIZE_MISMATCH",
        "EMPTY_LINE",
        "INVALID_EMBEDDING_ID",
    ]
    assert "record 2" in stats.partial_errors[0].error_message
    with pytest.raises(exceptions.GoogleAPICallError, match="no file of datapoints"):
        index.update_embeddings(contents_delta_uri=f"gs://{bucket.name}/nothing-{uuid.uuid4().hex}")


def test_endpoint_life(endpoint, index, mode):
    assert endpoint.deployed_indexes[0].id == deployed(mode)
    again = aiplatform.MatchingEngineIndex(index.resource_name)
    assert again.deployed_indexes[0].deployed_index_id == deployed(mode)
    endpoint.update(display_name="other", labels={"x": "y"})
    assert aiplatform.MatchingEngineIndexEndpoint(endpoint.resource_name).display_name == "other"
    endpoint.mutate_deployed_index(deployed_index_id=deployed(mode), min_replica_count=1, max_replica_count=3)
    again = aiplatform.MatchingEngineIndexEndpoint(endpoint.resource_name)
    assert again.deployed_indexes[0].automatic_resources.max_replica_count == 3
    with pytest.raises(exceptions.BadRequest, match="undeploy"):
        index.delete()
    with pytest.raises(exceptions.NotFound, match="no deployed index"):
        endpoint.find_neighbors(deployed_index_id="other", queries=[vector(0)])


def test_looked_into_by_the_command_line(server, index, endpoint):
    def tategu(*words):
        return subprocess.run(
            [binary(), "index", *words, "--project", "p", "--data", str(server.data)], check=True, capture_output=True, text=True
        ).stdout

    assert index.name in tategu("ls")
    assert "20 (20 with a vector, 20 with a sparse embedding)" in tategu("show", index.name)
    assert [json.loads(line)["datapointId"] for line in tategu("scan", index.name, "--limit", "2").splitlines()] == ["p0", "p1"]
    assert tategu("query", index.name, "--id", "p3", "-n", "1").split() == ["0", "p3"]
    rows = {r["id"]: r for r in map(json.loads, tategu("export", index.name).splitlines())}
    assert rows == {f"p{n}": record(n) for n in range(20)}


def test_rollback(server, index, bucket):
    csv = upload(bucket, ["only,1,1,0,0,0,0,0,0"], "points.csv")
    index.update_embeddings(contents_delta_uri=csv, is_complete_overwrite=True)

    def rollback():
        words = [binary(), "index", "rollback", index.name, "--project", "p", "--data", str(server.data)]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    assert "20 (20" in rollback()
    assert aiplatform.MatchingEngineIndex(index.resource_name).gca_resource.index_stats.vectors_count == 20
    assert "1 (1" in rollback()


@pytest.fixture(scope="module")
def private_server():
    """A server that listens on port 10000 too, which the SDK has in its code."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", 10000))
        except OSError:
            pytest.skip("port 10000 is in use on this machine")
    with tempfile.TemporaryDirectory(prefix="tategu-private-") as folder:
        made = Server(Path(folder), "vectors: {match: '127.0.0.1:10000'}\n")
        yield made
        made.stop()


def test_private_endpoint(private_server, monkeypatch):
    from google.auth.credentials import AnonymousCredentials

    aiplatform.initializer.global_config.__init__()
    aiplatform.init(
        project="p",
        location="us-central1",
        api_endpoint=f"http://{private_server.address}",
        api_transport="rest",
        credentials=AnonymousCredentials(),
    )
    monkeypatch.setenv("no_grpc_proxy", "127.0.0.1")
    made = aiplatform.MatchingEngineIndex.create_brute_force_index(
        display_name="private", dimensions=DIMS, distance_measure_type="SQUARED_L2_DISTANCE"
    )
    points = [
        types.IndexDatapoint(
            datapoint_id=f"p{n}",
            feature_vector=vector(n),
            restricts=[types.IndexDatapoint.Restriction(namespace="color", allow_list=[COLORS[n % 3]])],
            crowding_tag=types.IndexDatapoint.CrowdingTag(crowding_attribute=str(n % 2)),
        )
        for n in range(10)
    ]
    made.upsert_datapoints(points)
    end = aiplatform.MatchingEngineIndexEndpoint.create(display_name="private", network="projects/1/global/networks/n")
    end.deploy_index(made, deployed_index_id="private")
    found = end.match(deployed_index_id="private", queries=[vector(4.2), vector(0)], num_neighbors=2)
    assert [ids(f) for f in found] == [["p4", "p5"], ["p0", "p1"]]
    found = end.match(deployed_index_id="private", queries=[vector(0)], num_neighbors=2, filter=[Namespace("color", ["blue"], [])])
    assert ids(found[0]) == ["p2", "p5"]
    crowded = end.match(deployed_index_id="private", queries=[vector(0)], num_neighbors=9, per_crowding_attribute_num_neighbors=1)
    assert ids(crowded[0]) == ["p0", "p1"]
    import grpc
    from google.cloud.aiplatform.matching_engine._protos import match_service_pb2, match_service_pb2_grpc

    with grpc.insecure_channel("127.0.0.1:10000", options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = match_service_pb2_grpc.MatchServiceStub(channel)
        by_id = stub.Match(
            match_service_pb2.MatchRequest(deployed_index_id="private", embedding_id="p7", num_neighbors=1, embedding_enabled=True)
        )
        assert by_id.neighbor[0].id == "p7"
        assert by_id.neighbor[0].crowding_attribute == 1
        assert list(by_id.embeddings[0].float_val) == vector(7)
        read = stub.BatchGetEmbeddings(match_service_pb2.BatchGetEmbeddingsRequest(deployed_index_id="private", id=["p3"]))
        assert list(read.embeddings[0].float_val) == vector(3)
        with pytest.raises(grpc.RpcError, match="no index endpoint"):
            stub.Match(match_service_pb2.MatchRequest(deployed_index_id="unknown", embedding_id="p7"))
    end.undeploy_all()
    end.delete()
    made.delete()
    aiplatform.initializer.global_config.__init__()
