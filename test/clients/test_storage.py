"""google-cloud-storage: objects in and out."""

import os

import pytest
from google.api_core import exceptions


def test_object_lives_and_dies(bucket):
    blob = bucket.blob("a/b c/ü.txt")
    blob.metadata = {"colour": "blue"}
    blob.upload_from_string("hello", content_type="text/plain")
    again = bucket.get_blob("a/b c/ü.txt")
    assert again.size == 5
    assert again.content_type == "text/plain"
    assert again.metadata == {"colour": "blue"}
    assert again.download_as_bytes() == b"hello"
    assert again.download_as_bytes(start=1, end=3) == b"ell"
    again.delete()
    assert bucket.get_blob("a/b c/ü.txt") is None
    with pytest.raises(exceptions.NotFound):
        again.delete()


def test_resumable_upload_in_chunks(bucket, tmp_path):
    content = os.urandom(3 * 256 * 1024 + 17)
    path = tmp_path / "big"
    path.write_bytes(content)
    blob = bucket.blob("big", chunk_size=256 * 1024)
    blob.upload_from_filename(str(path))
    assert blob.size == len(content)
    # The client checks the digest of what it downloads.
    blob.download_to_filename(str(tmp_path / "back"), checksum="crc32c")
    assert (tmp_path / "back").read_bytes() == content


def test_empty_object(bucket):
    bucket.blob("empty").upload_from_string(b"")
    assert bucket.get_blob("empty").size == 0
    assert bucket.blob("empty").download_as_bytes() == b""


def test_list_by_prefix_delimiter_and_page(bucket):
    names = ["a/1", "a/2", "a/x/3", "b/4"]
    for name in names:
        bucket.blob(name).upload_from_string("x")
    client = bucket.client
    assert [b.name for b in client.list_blobs(bucket)] == names
    assert [b.name for b in client.list_blobs(bucket, page_size=1)] == names
    listing = client.list_blobs(bucket, prefix="a/", delimiter="/")
    assert [b.name for b in listing] == ["a/1", "a/2"]
    assert listing.prefixes == {"a/x/"}


def test_preconditions(bucket):
    blob = bucket.blob("once")
    blob.upload_from_string("1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("once").upload_from_string("2", if_generation_match=0)
    blob.upload_from_string("2", if_generation_match=blob.generation)
    assert blob.download_as_bytes() == b"2"


def test_bucket_that_is_not_empty_stays(bucket):
    bucket.blob("x").upload_from_string("x")
    with pytest.raises(exceptions.Conflict):
        bucket.delete()
    bucket.delete(force=True)
    with pytest.raises(exceptions.NotFound):
        bucket.client.get_bucket(bucket.name)


def test_unknown_bucket(bucket):
    with pytest.raises(exceptions.NotFound):
        bucket.client.bucket("nowhere-at-all").blob("x").upload_from_string("x")
