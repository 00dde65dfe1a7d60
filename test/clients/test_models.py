"""Model registry: versions, aliases, lists, updates, errors."""

import uuid

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform


def test_versions_and_aliases(echo_model):
    second = aiplatform.Model.upload(
        display_name=echo_model.display_name,
        parent_model=echo_model.resource_name,
        serving_container_image_uri="echo:2",
        is_default_version=True,
        version_aliases=["prod"],
        version_description="two",
    )
    assert second.resource_name == echo_model.resource_name
    assert second.version_id == "2"
    registry = aiplatform.ModelRegistry(echo_model.resource_name)
    versions = {v.version_id: v for v in registry.list_versions()}
    assert set(versions) == {"1", "2"}
    assert "default" in versions["2"].version_aliases
    assert "default" not in versions["1"].version_aliases
    assert versions["2"].version_description == "two"
    registry.add_version_aliases(["old"], "1")
    old = aiplatform.Model(echo_model.resource_name, version="old")
    assert old.container_spec.image_uri == "echo:1"
    registry.remove_version_aliases(["old"], "1")
    with pytest.raises(exceptions.NotFound):
        aiplatform.Model(echo_model.resource_name, version="old")
    registry.delete_version("1")
    assert [v.version_id for v in registry.list_versions()] == ["2"]


def test_default_version_cannot_be_deleted(echo_model):
    aiplatform.Model.upload(
        parent_model=echo_model.resource_name,
        serving_container_image_uri="echo:2",
        is_default_version=False,
    )
    registry = aiplatform.ModelRegistry(echo_model.resource_name)
    with pytest.raises(exceptions.BadRequest, match="default version"):
        registry.delete_version("1")


def test_list_update_delete(echo_model):
    found = aiplatform.Model.list(filter=f'display_name="{echo_model.display_name}"')
    assert [m.resource_name for m in found] == [echo_model.resource_name]
    echo_model.update(description="new words", labels={"team": "blue"})
    again = aiplatform.Model(echo_model.resource_name)
    assert (again.description, again.labels) == ("new words", {"team": "blue"})
    assert again.display_name == echo_model.display_name
    echo_model.delete()
    with pytest.raises(exceptions.NotFound):
        aiplatform.Model(echo_model.resource_name)


def test_not_found_is_not_found(mode):
    with pytest.raises(exceptions.NotFound):
        aiplatform.Model("123456")
    with pytest.raises(exceptions.NotFound):
        aiplatform.Endpoint("123456").list_models()
    with pytest.raises(exceptions.NotFound):
        aiplatform.CustomJob.get("123456")


def test_chosen_id_and_conflict(mode):
    wanted = f"chosen-{uuid.uuid4().hex[:8]}"
    model = aiplatform.Model.upload(
        display_name="c", model_id=wanted, serving_container_image_uri="echo:1"
    )
    assert model.name == wanted
    with pytest.raises(exceptions.Conflict):
        aiplatform.Model.upload(
            display_name="c", model_id=wanted, serving_container_image_uri="echo:1"
        )
