"""The unmodified google-cloud-storage client against the server named by STORAGE_EMULATOR_HOST.

Each check is a function; the first failure ends the run with a traceback.
"""

import base64
import gzip
import hashlib
import io
import os
import sys
import tempfile

import requests
from google.api_core import exceptions as E
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

BASE = os.environ["STORAGE_EMULATOR_HOST"]
client = storage.Client(project="p", credentials=AnonymousCredentials())
bucket = client.create_bucket("client-test")


def refused(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error:
        return
    raise AssertionError(f"accepted, {error} is wanted")


def put(name, data="x", **kwargs):
    bucket.blob(name).upload_from_string(data, **kwargs)
    return bucket.get_blob(name)


def equal(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def check_simple():
    blob = put("a/x.txt", "hi", content_type="text/csv")
    equal(blob.download_as_bytes(), b"hi")
    equal(base64.b64decode(blob.md5_hash), hashlib.md5(b"hi").digest())
    equal((blob.size, blob.content_type, blob.metageneration), (2, "text/csv", 1))
    assert blob.crc32c and blob.generation and blob.etag and blob.time_created
    blob = put("empty", "")
    equal((blob.size, blob.download_as_bytes()), (0, b""))


def check_buckets():
    refused(E.Conflict, client.create_bucket, bucket.name)
    refused(E.NotFound, client.get_bucket, "no-such-bucket-here")
    refused(E.NotFound, bucket.blob("none").download_as_bytes)
    refused(E.Conflict, client.get_bucket(bucket.name).delete)
    assert bucket.name in [b.name for b in client.list_buckets()]
    other = client.create_bucket("client-test-other", location="europe-west1")
    equal(other.location, "EUROPE-WEST1")
    other.labels = {"a": "b"}
    other.patch()
    equal(client.get_bucket(other.name).labels, {"a": "b"})
    other.delete()
    equal(client.lookup_bucket(other.name), None)


def check_preconditions():
    blob = put("p1", "1")
    refused(E.PreconditionFailed, bucket.blob("p1").upload_from_string, "2", if_generation_match=0)
    bucket.blob("p1").upload_from_string("2", if_generation_match=blob.generation)
    refused(E.PreconditionFailed, bucket.blob("p1").upload_from_string, "3", if_generation_match=blob.generation)
    equal(bucket.blob("p1").download_as_bytes(), b"2")
    blob = put("p2", "1")
    refused(E.PreconditionFailed, bucket.blob("p2").delete, if_generation_match=1)
    blob.metadata = {"k": "v"}
    refused(E.PreconditionFailed, blob.patch, if_metageneration_match=999)
    blob.patch(if_metageneration_match=blob.metageneration)
    equal(bucket.get_blob("p2").metageneration, 2)
    refused(E.PreconditionFailed, bucket.copy_blob, blob, bucket, "p2c", if_generation_match=123)
    put("p3", "1")
    refused(E.PreconditionFailed, bucket.blob("p3").compose, [blob], if_generation_match=0)
    refused(E.PreconditionFailed, bucket.blob("p2").download_as_bytes, if_generation_match=1)
    refused(E.NotModified, bucket.blob("p2").download_as_bytes, if_generation_not_match=blob.generation)
    refused(E.PreconditionFailed, bucket.blob("p2").download_as_bytes, if_etag_match="bm8=")
    equal(bucket.blob("p2").download_as_bytes(if_etag_match=bucket.get_blob("p2").etag), b"1")


def check_generations():
    old = put("g", "1").generation
    equal(bucket.blob("g", generation=old).download_as_bytes(), b"1")
    put("g", "2")
    refused(E.NotFound, bucket.blob("g", generation=old).download_as_bytes)


def check_ranges():
    put("r", "0123456789")
    equal(bucket.blob("r").download_as_bytes(start=2, end=4), b"234")
    equal(bucket.blob("r").download_as_bytes(start=7), b"789")
    equal(bucket.blob("r").download_as_bytes(start=-3), b"789")
    refused(E.RequestRangeNotSatisfiable, bucket.blob("r").download_as_bytes, start=50)
    url = f"{BASE}/{bucket.name}/r"
    answer = requests.get(url, headers={"Range": "bytes=0-1,4-5"})
    equal((answer.status_code, answer.headers["Content-Type"].split(";")[0]), (206, "multipart/byteranges"))
    assert b"\r\n\r\n01\r\n" in answer.content and b"\r\n\r\n45\r\n" in answer.content, answer.content
    equal(bucket.blob("r", chunk_size=256 << 10).download_as_bytes(), b"0123456789")


def check_lists():
    for i in range(7):
        put(f"l/{i}/f")
    pages = list(client.list_blobs(bucket.name, prefix="l/", delimiter="/", page_size=3).pages)
    equal(len(pages), 3)
    it = client.list_blobs(bucket.name, prefix="l/", delimiter="/", page_size=3)
    equal(list(it), [])
    equal(sorted(it.prefixes), [f"l/{i}/" for i in range(7)])
    equal([x.name for x in client.list_blobs(bucket.name, prefix="l/", start_offset="l/5")], ["l/5/f", "l/6/f"])
    equal([x.name for x in client.list_blobs(bucket.name, prefix="l/", end_offset="l/2")], ["l/0/f", "l/1/f"])
    put("l/dir/")
    it = client.list_blobs(bucket.name, prefix="l/d", delimiter="/", include_trailing_delimiter=True)
    equal([x.name for x in it], ["l/dir/"])
    equal(it.prefixes, {"l/dir/"})


def check_names():
    for name in ["日本語/図面.txt", "a b", "a%2Fb", "a+b", "q?x=1", "h#1", "d//e", "/lead", "../up", "n" * 1024, "t/", "&=;"]:
        put(name, name)
        equal(bucket.blob(name).download_as_bytes().decode(), name)
        assert name in [x.name for x in client.list_blobs(bucket.name, prefix=name[:3])], name
        bucket.blob(name).delete()
        equal(bucket.get_blob(name), None)
    refused(E.BadRequest, put, "n" * 1025)


def check_metadata():
    blob = put("m", "1", content_type="text/csv")
    blob.metadata, blob.cache_control = {"k": "v", "gone": "x"}, "no-store"
    blob.patch()
    got = bucket.get_blob("m")
    equal((got.metadata, got.cache_control, got.content_type), ({"k": "v", "gone": "x"}, "no-store", "text/csv"))
    copied = bucket.copy_blob(got, bucket, "m2")
    equal(copied.download_as_bytes(), b"1")
    equal(bucket.get_blob("m2").metadata, {"k": "v", "gone": "x"})
    got.metadata = {"k": "w", "gone": None}
    got.patch()
    equal(bucket.get_blob("m").metadata, {"k": "w"})
    got.content_type = "text/plain"
    got.update()
    equal(bucket.get_blob("m").content_type, "text/plain")
    bucket.rename_blob(bucket.blob("m2"), "m3")
    equal((bucket.get_blob("m2"), bucket.get_blob("m3").size), (None, 1))


def check_compose():
    put("c1", "A"), put("c2", "B")
    composed = bucket.blob("c3")
    composed.content_type = "text/plain"
    composed.compose([bucket.blob("c1"), bucket.blob("c2")])
    equal(composed.download_as_bytes(checksum="crc32c"), b"AB")
    equal(bucket.get_blob("c3").component_count, 2)


def check_gzip():
    blob = bucket.blob("z")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(b"hello" * 100), content_type="text/plain")
    equal(bucket.blob("z").download_as_bytes(), b"hello" * 100)
    equal(bucket.blob("z").download_as_bytes(raw_download=True)[:2], b"\x1f\x8b")
    answer = requests.get(f"{BASE}/{bucket.name}/z", headers={"Accept-Encoding": "identity"})
    equal(answer.content, b"hello" * 100)


def check_resumable():
    data = os.urandom(9 << 20)
    bucket.blob("big", chunk_size=1 << 20).upload_from_file(io.BytesIO(data), size=len(data), checksum="crc32c")
    equal(bucket.blob("big").download_as_bytes(checksum="crc32c") == data, True)
    with tempfile.TemporaryDirectory() as tmp:  # above 8 MB the client chooses resumable by itself
        path = os.path.join(tmp, "f")
        with open(path, "wb") as f:
            f.write(data)
        bucket.blob("file").upload_from_filename(path)
        bucket.blob("file").download_to_filename(path + ".out", checksum="md5")
        with open(path + ".out", "rb") as f:
            equal(f.read() == data, True)
    with bucket.blob("w").open("wb", chunk_size=256 << 10) as f:
        for _ in range(5):
            f.write(b"x" * (200 << 10))
    equal(bucket.get_blob("w").size, 1000 << 10)
    with bucket.blob("w").open("rb") as f:
        f.seek(10)
        equal(f.read(3), b"xxx")
    with bucket.blob("w0").open("wb") as f:
        pass
    equal(bucket.get_blob("w0").size, 0)
    bucket.blob("chunked0", chunk_size=256 << 10).upload_from_file(io.BytesIO(b""), size=0)
    equal(bucket.get_blob("chunked0").size, 0)


def check_interrupted():
    url, half, size = bucket.blob("q").create_resumable_upload_session(size=1 << 20), 256 << 10, 1 << 20
    answer = requests.put(url, data=b"x" * half, headers={"Content-Range": f"bytes 0-{half - 1}/{size}"})
    equal((answer.status_code, answer.headers.get("Range")), (308, f"bytes=0-{half - 1}"))
    answer = requests.put(url, headers={"Content-Range": f"bytes */{size}"})
    equal((answer.status_code, answer.headers.get("Range")), (308, f"bytes=0-{half - 1}"))
    answer = requests.put(url, data=b"y" * (size - half), headers={"Content-Range": f"bytes {half}-{size - 1}/{size}"})
    equal(answer.status_code, 200)
    equal(bucket.blob("q").download_as_bytes(), b"x" * half + b"y" * (size - half))
    url = bucket.blob("q2").create_resumable_upload_session(size=10)
    equal(requests.delete(url, headers={"Content-Length": "0"}).status_code, 499)
    equal(requests.put(url, headers={"Content-Range": "bytes */10"}).status_code, 404)


def check_checksums():
    url = f"{BASE}/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=bad"
    equal(requests.post(url, data=b"abc", headers={"X-Goog-Hash": "crc32c=AAAAAA=="}).status_code, 400)
    equal(bucket.get_blob("bad"), None)


def check_policy():
    policy = bucket.get_iam_policy(requested_policy_version=3)
    assert policy.etag
    policy.bindings.append({"role": "roles/storage.objectViewer", "members": {"user:a@example.com"}})
    bucket.set_iam_policy(policy)
    refused(E.PreconditionFailed, bucket.set_iam_policy, policy)
    assert any(x["role"] == "roles/storage.objectViewer" for x in bucket.get_iam_policy(requested_policy_version=3).bindings)
    equal(bucket.test_iam_permissions(["storage.objects.get"]), ["storage.objects.get"])


def check_batch():
    for i in range(3):
        put(f"batch/{i}")
    with client.batch():
        for i in range(3):
            bucket.blob(f"batch/{i}").delete()
    equal(list(client.list_blobs(bucket.name, prefix="batch/")), [])
    put("batch/x")
    blob = bucket.get_blob("batch/x")
    blob.metadata = {"k": "v"}
    with client.batch():
        blob.patch()
    equal(bucket.get_blob("batch/x").metadata, {"k": "v"})
    try:
        with client.batch():
            bucket.blob("batch/none").delete()
            bucket.blob("batch/x").delete()
    except E.NotFound:
        pass
    else:
        raise AssertionError("a missing object was deleted")
    equal(bucket.get_blob("batch/x"), None)
    bucket.delete_blobs(list(client.list_blobs(bucket.name, prefix="l/")))


def check_versions():
    versioned = client.bucket("client-test-v")
    versioned.versioning_enabled = True
    versioned.create()
    for data in ("old", "new"):
        versioned.blob("x").upload_from_string(data)
    old, new = client.list_blobs(versioned, versions=True)
    equal((old.download_as_bytes(), new.download_as_bytes()), (b"old", b"new"))
    equal(versioned.blob("x", generation=old.generation).download_as_bytes(), b"old")
    versioned.copy_blob(old, versioned, "x", source_generation=old.generation)
    equal(versioned.blob("x").download_as_bytes(), b"old")
    refused(E.BadRequest, lambda: list(client.list_blobs(versioned, versions=True, soft_deleted=True, retry=None)))


def check_force_delete():
    bucket.delete(force=True)
    equal(client.lookup_bucket(bucket.name), None)


for name, check in list(globals().items()):
    if name.startswith("check_"):
        check()
        print("ok", name[len("check_"):], flush=True)
sys.exit(0)
