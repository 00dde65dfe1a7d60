"""ML metadata: artifacts, executions and contexts."""

import uuid

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform
from google.cloud.aiplatform.metadata import context as contexts
from google.cloud.aiplatform.metadata import execution as executions


def test_artifact(mode):
    name = f"ds-{uuid.uuid4().hex[:8]}"
    made = aiplatform.Artifact.create(
        schema_title="system.Dataset",
        uri="gs://b/x",
        display_name=name,
        metadata={"rows": 3},
    )
    again = aiplatform.Artifact.get(made.resource_name)
    assert (again.uri, again.metadata) == ("gs://b/x", {"rows": 3})
    found = aiplatform.Artifact.list(
        filter=f'schema_title="system.Dataset" AND display_name="{name}"'
    )
    assert [a.resource_name for a in found] == [made.resource_name]


def test_execution(mode):
    # Without credentials the client's create takes a type for them.
    made = executions.Execution.create(
        schema_title="system.ContainerExecution",
        display_name="x",
        credentials=aiplatform.initializer.global_config.credentials,
    )
    made.update(metadata={"step": 2})
    assert executions.Execution.get(made.resource_name).metadata["step"] == 2


def test_context_get_or_create(mode):
    wanted = f"ctx-{uuid.uuid4().hex[:8]}"
    kind = {"schema_title": "system.Experiment", "resource_id": wanted}
    first = contexts.Context.get_or_create(**kind, metadata={"a": 1})
    second = contexts.Context.get_or_create(**kind)
    assert first.resource_name == second.resource_name
    assert second.metadata == {"a": 1}


def test_unknown_artifact(mode):
    with pytest.raises(exceptions.NotFound):
        aiplatform.Artifact("nothing-here")
