"""Keys of service accounts, and URLs signed with them, by google-cloud-storage."""

import datetime
import hashlib
import json
import uuid

import google.auth
import google.auth.transport.requests
import pytest
import requests
from google.api_core import exceptions
from google.cloud import storage
from google.oauth2 import service_account

from conftest import PROJECT

ACCOUNT = f"signer@{PROJECT}.iam.tategu.internal"
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
MINUTE = datetime.timedelta(minutes=1)


@pytest.fixture(scope="session")
def key(server):
    """A key file of a service account, as its owner gets it."""
    return json.loads(server.command("key", "create", ACCOUNT))


@pytest.fixture
def signer(key):
    return service_account.Credentials.from_service_account_info(key, scopes=SCOPES)


@pytest.fixture
def sign(server, mode, bucket, signer):
    """Sign a URL of an object, for the address that the mode uses."""
    place = {"api_access_endpoint": f"http://{server.address}"}

    def url(blob, method="GET", **options):
        options = {**({} if mode == "intercept" else place), **options}
        options.setdefault("credentials", signer)
        return blob.generate_signed_url(
            version="v4", expiration=MINUTE, method=method, **options
        )

    return url


def test_put_get_delete(bucket, sign):
    blob = bucket.blob("a/b c/ü+&~(1).txt")
    headers = {"x-goog-meta-colour": "deep red", "Content-Type": "text/x"}
    done = requests.put(sign(blob, "PUT", headers=dict(headers)), b"1", headers=headers)
    assert done.status_code == 200, done.text
    assert bucket.get_blob(blob.name).metadata == {"colour": "deep red"}
    got = requests.get(sign(blob))
    assert (got.status_code, got.content) == (200, b"1")
    assert got.headers["Content-Type"] == "text/x"
    assert requests.head(sign(blob, "HEAD")).status_code == 200
    assert requests.put(sign(blob)).status_code == 403
    assert requests.delete(sign(blob, "DELETE")).status_code == 204
    assert requests.get(sign(blob)).status_code == 404


def test_options(bucket, sign):
    blob = bucket.blob("report")
    blob.upload_from_string(b"1")
    first = blob.generation
    got = requests.get(
        sign(
            blob,
            response_disposition='attachment; filename="a b+ü.csv"',
            response_type="text/csv; charset=utf-8",
            query_parameters={"a-b": "1", "a": "", "x y": "ü&="},
            generation=first,
        )
    )
    assert (got.status_code, got.content) == (200, b"1"), got.text
    assert got.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert got.headers["Content-Disposition"].startswith("attachment")
    assert requests.get(sign(blob, generation=1)).status_code == 404


def test_content_hash(bucket, sign):
    blob = bucket.blob("hashed")
    headers = {"X-Goog-Content-SHA256": hashlib.sha256(b"right").hexdigest()}
    url = sign(blob, "PUT", headers=dict(headers))
    assert requests.put(url, b"wrong", headers=headers).status_code == 400
    assert not blob.exists()
    assert requests.put(url, b"right", headers=headers).status_code == 200


def test_resumable_session(bucket, sign):
    blob = bucket.blob("big")
    start = requests.post(
        sign(blob, "RESUMABLE"), headers={"x-goog-resumable": "start"}
    )
    assert start.status_code == 201, start.text
    assert requests.put(start.headers["Location"], b"content").status_code == 200
    assert blob.download_as_bytes() == b"content"


def test_tampered_and_foreign(bucket, sign, key):
    blob = bucket.blob("safe")
    blob.upload_from_string(b"1")
    url = sign(blob)
    assert requests.get(url).status_code == 200
    tampered = requests.get(url.replace("safe", "soft"))
    assert tampered.status_code == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in tampered.text
    other = {**key, "client_email": f"other@{PROJECT}.iam.tategu.internal"}
    foreign = service_account.Credentials.from_service_account_info(other)
    assert requests.get(sign(blob, credentials=foreign)).status_code == 403
    old = blob.generate_signed_url(version="v2", expiration=MINUTE, credentials=foreign)
    assert "version=v4" not in old  # refused by name
    place = url.partition("?")[0]
    assert requests.get(f"{place}?{old.partition('?')[2]}").status_code == 501


def test_form(server, mode, bucket, signer):
    """A browser's upload by a policy document."""
    client = storage.Client(project=PROJECT)
    policy = client.generate_signed_post_policy_v4(
        bucket.name,
        "form/ü.txt",
        expiration=MINUTE,
        conditions=[["content-length-range", 0, 10]],
        fields={"x-goog-meta-colour": "red", "success_action_status": "201"},
        credentials=signer,
        scheme="https" if mode == "intercept" else None,
    )
    url = policy["url"]
    if mode == "http":
        url = f"http://{server.address}/{bucket.name}/"
    page = {"Origin": "https://page.example"}  # of a form there
    done = requests.post(
        url, data=policy["fields"], files={"file": ("x", b"12345")}, headers=page
    )
    assert done.status_code == 201, done.text
    stored = bucket.get_blob("form/ü.txt")
    assert (stored.size, stored.metadata) == (5, {"colour": "red"})
    large = requests.post(url, data=policy["fields"], files={"file": ("x", b"1" * 11)})
    assert (large.status_code, "EntityTooLarge" in large.text) == (400, True)
    changed = {**policy["fields"], "key": "form/other"}
    refused = requests.post(url, data=changed, files={"file": ("x", b"1")})
    assert (refused.status_code, "InvalidPolicyDocument" in refused.text) == (400, True)


def test_bucket_bound_hostname(server, mode, signer):
    name = f"{uuid.uuid4().hex[:8]}.example.com"
    server.make_bucket(PROJECT, name)
    blob = storage.Client(project=PROJECT).bucket(name).blob("v1/o")
    blob.upload_from_string(b"bound")
    url = blob.generate_signed_url(
        version="v4",
        expiration=MINUTE,
        credentials=signer,
        bucket_bound_hostname=f"http://{name}",
    )
    here = url.replace(name, server.address, 1)
    got = requests.get(here, headers={"Host": name})
    assert (got.status_code, got.content) == (200, b"bound"), got.text
    # By such a name nobody is the operator.
    assert requests.get(here.partition("?")[0], headers={"Host": name}).status_code == 401


def test_virtual_hosted_style(mode, bucket, sign):
    if mode != "intercept":
        pytest.skip("an address has no names below it")
    blob = bucket.blob("v1/o")
    blob.upload_from_string(b"1")
    url = sign(blob, virtual_hosted_style=True)
    assert url.startswith(f"https://{bucket.name}.storage.googleapis.com/v1/o?")
    assert requests.get(url).content == b"1"


def test_key_file_is_a_credential(mode, bucket, signer):
    if mode != "intercept":
        pytest.skip("STORAGE_EMULATOR_HOST makes the client drop credentials")
    mine = storage.Client(project=PROJECT, credentials=signer)
    mine.bucket(bucket.name).blob("by-key").upload_from_string(b"1")
    assert bucket.blob("by-key").download_as_bytes() == b"1"
    with pytest.raises(exceptions.Forbidden):
        mine.bucket(bucket.name).delete(force=True)


def test_signing_without_a_key_file(mode, bucket, sign):
    """IAM's signBlob signs for those who may act as the account."""
    if mode != "intercept":
        pytest.skip("signBlob is asked at iamcredentials.googleapis.com")
    blob = bucket.blob("by-iam")
    blob.upload_from_string(b"1")
    mine, _ = google.auth.default(scopes=SCOPES)
    mine.refresh(google.auth.transport.requests.Request())
    url = sign(
        blob,
        credentials=mine,
        service_account_email=ACCOUNT,
        access_token=mine.token,
    )
    assert requests.get(url).content == b"1"


def test_deleted_key_is_dead(server, mode, bucket, sign):
    key = json.loads(server.command("key", "create", f"gone@{PROJECT}.iam.tategu.internal"))
    mine = service_account.Credentials.from_service_account_info(key, scopes=SCOPES)
    blob = bucket.blob("o")
    blob.upload_from_string(b"1")
    url = sign(blob, credentials=mine)
    assert requests.get(url).status_code == 200
    server.command("key", "delete", key["client_email"], key["private_key_id"])
    assert requests.get(url).status_code == 403


def test_bucket_policy_opens(server, mode, bucket):
    """A policy made by the client lets in who has no role in the project."""
    secret = server.command(
        *("token", "create", "--role", "viewer", "--project", "elsewhere"),
        *("--email", "guest@example.com"),
    ).strip()
    blob = bucket.blob("shared")
    blob.upload_from_string(b"1")
    link = f"http://{server.address}/{bucket.name}/shared"
    headers = {"Authorization": f"Bearer {secret}"}
    assert requests.get(link, headers=headers).status_code == 403
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings.append(
        {"role": "roles/storage.objectViewer", "members": {"user:guest@example.com"}}
    )
    bucket.set_iam_policy(policy)
    assert requests.get(link, headers=headers).content == b"1"
    assert requests.delete(link, headers=headers).status_code == 403
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.set_iam_policy(policy)  # its etag is the old one
    asked = ["storage.objects.get", "storage.buckets.delete"]
    assert bucket.test_iam_permissions(asked) == asked
