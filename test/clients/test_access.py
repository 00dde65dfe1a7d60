"""What a token may do."""

import pytest
from google.api_core import exceptions
from google.auth.exceptions import RefreshError
from google.cloud import aiplatform
from google.oauth2.credentials import Credentials

from conftest import LOCATION, PROJECT


@pytest.fixture
def viewer(server, mode):
    """The clients' view with the token of a viewer."""
    output = server.command(
        *("token", "create", "--role", "viewer", "--project", PROJECT),
        *("--email", "eve@example.com"),
    )
    return Credentials(token=output.strip())


def test_viewer_reads_but_does_not_deploy(viewer, echo_model):
    endpoint = aiplatform.Endpoint.create(display_name="guarded")
    place = {"project": PROJECT, "location": LOCATION, "credentials": viewer}
    seen = aiplatform.Endpoint(endpoint.resource_name, **place)
    assert seen.display_name == "guarded"
    with pytest.raises(exceptions.Forbidden, match="deploy"):
        seen.deploy(echo_model, machine_type="n1-standard-2")
    assert aiplatform.Endpoint(endpoint.resource_name).list_models() == []
    endpoint.delete()


def test_unknown_token_is_refused(mode):
    place = {
        "project": PROJECT,
        "location": LOCATION,
        "credentials": Credentials(token="made-up"),
    }
    # Over REST the client first tries to refresh what it cannot refresh.
    with pytest.raises((exceptions.Unauthenticated, RefreshError)):
        aiplatform.Endpoint.list(**place)
