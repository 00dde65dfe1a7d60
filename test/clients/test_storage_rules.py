"""google-cloud-storage: versions, restore, holds, retention, lifecycle, notifications."""

import datetime

import pytest
from google.api_core import exceptions


def test_versions(bucket):
    bucket.versioning_enabled = True
    bucket.patch()
    blob = bucket.blob("x")
    for text in ("1", "2", "3"):
        blob.upload_from_string(text)
    found = list(bucket.client.list_blobs(bucket, versions=True))
    assert [b.download_as_bytes() for b in found] == [b"1", b"2", b"3"]
    assert [b.time_deleted is None for b in found] == [False, False, True]
    bucket.blob("x").delete()  # a client object that knows its generation deletes that one for good
    assert not bucket.blob("x").exists()
    bucket.copy_blob(found[0], bucket, "x", source_generation=found[0].generation)
    assert bucket.blob("x").download_as_bytes() == b"1"
    bucket.blob("x", generation=found[1].generation).delete()
    left = bucket.client.list_blobs(bucket, versions=True, page_size=1)
    assert [b.generation for b in left][:2] == [found[0].generation, found[2].generation]
    with pytest.raises(exceptions.Conflict):
        bucket.delete()


def test_soft_delete_and_restore(bucket):
    bucket.soft_delete_policy.retention_duration_seconds = 7 * 86400
    bucket.patch()
    assert bucket.soft_delete_policy.effective_time
    blob = bucket.blob("x")
    blob.upload_from_string("precious")
    blob.delete()
    (lost,) = bucket.client.list_blobs(bucket, soft_deleted=True)
    assert lost.soft_delete_time and lost.hard_delete_time > lost.soft_delete_time
    assert bucket.get_blob("x", generation=lost.generation, soft_deleted=True)
    back = bucket.restore_blob("x", generation=lost.generation)
    assert back.download_as_bytes() == b"precious"


def test_holds_and_retention(bucket):
    blob = bucket.blob("x")
    blob.upload_from_string("1")
    blob.event_based_hold = True
    blob.patch()
    with pytest.raises(exceptions.Forbidden):
        blob.delete()
    bucket.retention_period = 3600
    bucket.patch()
    blob.event_based_hold = False
    blob.patch()
    blob.reload()
    in_an_hour = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    assert abs(blob.retention_expiration_time - in_an_hour) < datetime.timedelta(minutes=5)
    with pytest.raises(exceptions.Forbidden):
        blob.upload_from_string("2")
    bucket.lock_retention_policy()
    assert bucket.retention_policy_locked
    bucket.retention_period = None
    with pytest.raises(exceptions.Forbidden):
        bucket.patch()


def test_lifecycle_cors_and_class(bucket):
    bucket.add_lifecycle_delete_rule(age=3, matches_prefix=["tmp/"])
    bucket.add_lifecycle_set_storage_class_rule("NEARLINE", days_since_noncurrent_time=1)
    bucket.add_lifecycle_abort_incomplete_multipart_upload_rule(age=1)
    bucket.cors = [{"origin": ["*"], "method": ["GET"], "maxAgeSeconds": 5}]
    bucket.patch()
    again = bucket.client.get_bucket(bucket.name)
    rules = [(r["action"]["type"], r["condition"]) for r in again.lifecycle_rules]
    assert rules == [
        ("Delete", {"age": 3, "matchesPrefix": ["tmp/"]}),
        ("SetStorageClass", {"daysSinceNoncurrentTime": 1}),
        ("AbortIncompleteMultipartUpload", {"age": 1}),
    ]
    assert again.cors[0]["maxAgeSeconds"] == 5
    blob = bucket.blob("x")
    blob.upload_from_string("1")
    blob.update_storage_class("COLDLINE")
    assert bucket.get_blob("x").storage_class == "COLDLINE"
    assert blob.download_as_bytes() == b"1"


def test_notifications(bucket):
    made = bucket.notification(
        topic_name="changes", topic_project="project-1", event_types=["OBJECT_FINALIZE"],
        blob_name_prefix="in/", custom_attributes={"k": "v"}, payload_format="JSON_API_V1",
    )  # fmt: skip
    made.create()
    (found,) = bucket.list_notifications()
    assert (found.topic_name, found.topic_project) == ("changes", "project-1")
    assert found.event_types == ["OBJECT_FINALIZE"] and found.blob_name_prefix == "in/"
    assert bucket.get_notification(found.notification_id).custom_attributes == {"k": "v"}
    found.delete()
    assert not list(bucket.list_notifications())


def test_globs_and_chosen_fields(bucket):
    for name in ("a/1.csv", "a/2.txt", "b/3.csv"):
        bucket.blob(name).upload_from_string("x")
    client = bucket.client
    assert [b.name for b in client.list_blobs(bucket, match_glob="**.csv")] == ["a/1.csv", "b/3.csv"]
    (one,) = client.list_blobs(bucket, prefix="a/2", fields="items(name),nextPageToken")
    assert one.name == "a/2.txt" and one.size is None


def test_compose_and_move(bucket):
    for name in ("1", "2"):
        bucket.blob(name).upload_from_string(name)
    joined = bucket.blob("12")
    joined.compose([bucket.blob("1"), bucket.blob("2")])
    assert joined.download_as_bytes(checksum="crc32c") == b"12" and joined.md5_hash is None
    moved = bucket.rename_blob(joined, "new")
    assert moved.download_as_bytes() == b"12"
    if hasattr(bucket, "move_blob"):
        assert bucket.move_blob(moved, "newer").download_as_bytes() == b"12"
