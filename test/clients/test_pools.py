"""Deployment resource pools: several models share the replicas of one pool."""

import uuid

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform


def test_pool(mode, echo_model):
    name = f"pool-{uuid.uuid4().hex[:8]}"
    pool = aiplatform.DeploymentResourcePool.create(
        name, machine_type="n1-standard-2", min_replica_count=1, max_replica_count=1
    )
    assert name in [p.name for p in aiplatform.DeploymentResourcePool.list()]
    endpoints = [aiplatform.Endpoint.create(display_name=f"shared-{n}") for n in range(2)]
    for endpoint in endpoints:
        endpoint.deploy(echo_model, deployment_resource_pool=pool)
    for turn in range(4):  # one leaves, the other comes back, for each of them
        endpoint = endpoints[turn % 2]
        assert endpoint.predict(instances=[turn]).predictions == [turn]
    refs = [ref for page in pool.query_deployed_models() for ref in page]
    assert sorted(ref.endpoint for ref in refs) == sorted(e.resource_name for e in endpoints)
    with pytest.raises(exceptions.BadRequest):  # FailedPrecondition over gRPC is one
        pool.delete()
    for endpoint in endpoints:
        endpoint.delete(force=True)
    pool.delete()
    with pytest.raises(exceptions.NotFound):
        aiplatform.DeploymentResourcePool(name)
