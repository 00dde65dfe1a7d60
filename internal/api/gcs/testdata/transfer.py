"""transfer_manager and the XML API of the server named by STORAGE_EMULATOR_HOST: the unmodified client, then plain requests.

Each check is a function; the first failure ends the run with a traceback.
"""

import base64
import hashlib
import os
import sys
import tempfile
from urllib.parse import quote
from xml.etree import ElementTree

import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage import transfer_manager

BASE = os.environ["STORAGE_EMULATOR_HOST"]
S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"
MB = 1 << 20
client = storage.Client(project="p", credentials=AnonymousCredentials())
bucket = client.bucket("transfer-test")
tmp = tempfile.mkdtemp()


def equal(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def file_of(name, data):
    path = os.path.join(tmp, name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def call(method, path, status, data=None, **headers):
    r = requests.request(method, BASE + path, data=data, headers={k.replace("_", "-"): v for k, v in headers.items()})
    assert r.status_code == status, f"{method} {path} = {r.status_code} {r.text}, want {status}"
    return r


def uploads():
    root = ElementTree.fromstring(call("GET", f"/{bucket.name}?uploads", 200).text)
    return [u.find(S3 + "Key").text for u in root.findall(S3 + "Upload")]


def check_chunks():
    data = os.urandom(17 * MB + 5)
    path = file_of("f", data)
    for checksum in ("auto", "md5", "crc32c", None):
        for name in ("chunks", "dir/日本 %2F?#+&x"):
            blob = bucket.blob(name)
            blob.metadata, blob.cache_control, blob.content_language = {"some-key": "v 1"}, "no-store", "ja"
            transfer_manager.upload_chunks_concurrently(
                path, blob, content_type="text/x", chunk_size=6 * MB, max_workers=3, worker_type=transfer_manager.THREAD, checksum=checksum
            )
            got = bucket.get_blob(name)
            equal(got.download_as_bytes(), data)
            equal((got.size, got.content_type, got.metadata, got.cache_control), (len(data), "text/x", {"some-key": "v 1"}, "no-store"))
            assert got.md5_hash is None and got.component_count is None and got.crc32c
    out = os.path.join(tmp, "out")
    transfer_manager.download_chunks_concurrently(
        bucket.blob("chunks"), out, chunk_size=4 * MB, max_workers=3, worker_type=transfer_manager.THREAD
    )
    equal(open(out, "rb").read(), data)
    equal(uploads(), [])


def check_processes():
    data = os.urandom(11 * MB)
    transfer_manager.upload_chunks_concurrently(file_of("p", data), bucket.blob("p"), chunk_size=5 * MB, max_workers=2)
    equal(bucket.blob("p").download_as_bytes(), data)


def check_a_failed_upload_leaves_nothing():
    try:
        transfer_manager.upload_chunks_concurrently(
            file_of("small", os.urandom(3 * MB)), bucket.blob("small"), chunk_size=MB, max_workers=2, worker_type=transfer_manager.THREAD
        )
    except Exception as e:
        assert "EntityTooSmall" in str(e) or "400" in str(e), e
    else:
        raise AssertionError("parts of 1 MB were taken")
    equal(bucket.get_blob("small"), None)
    equal(uploads(), [])


def check_many():
    names = [f"many/{i}" for i in range(12)]
    paths = [file_of(f"m{i}", str(i).encode()) for i in range(12)]
    results = transfer_manager.upload_many(
        [(p, bucket.blob(n)) for p, n in zip(paths, names)], worker_type=transfer_manager.THREAD, raise_exception=True, skip_if_exists=True
    )
    equal(results, [None] * 12)
    outs = [os.path.join(tmp, f"o{i}") for i in range(12)]
    transfer_manager.download_many([(bucket.blob(n), o) for n, o in zip(names, outs)], worker_type=transfer_manager.THREAD, raise_exception=True)
    equal([open(o).read() for o in outs], [str(i) for i in range(12)])


def check_a_part_that_is_damaged_on_the_way():
    at = f"/{bucket.name}/damaged"
    upload = ElementTree.fromstring(call("POST", at + "?uploads", 200).text).find(S3 + "UploadId").text
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    r = call("PUT", f"{at}?partNumber=1&uploadId={upload}", 400, b"data", x_goog_hash="md5=" + wrong)
    root = ElementTree.fromstring(r.text)
    equal((root.find("Code").text, root.find("Details") is None), ("BadDigest", False))
    call("DELETE", f"{at}?uploadId={upload}", 204)


def check_plain_xml():
    name = "plain/日本 +&?.txt"
    at = f"/{bucket.name}/" + quote(name)
    r = call("PUT", at, 200, b"0123456789", Content_Type="text/x", x_goog_meta_a="b", x_goog_if_generation_match="0")
    equal(r.headers["ETag"], '"' + hashlib.md5(b"0123456789").hexdigest() + '"')
    call("PUT", at, 412, b"x", x_goog_if_generation_match="0")
    r = call("GET", at, 206, Range="bytes=2-4")
    equal((r.content, r.headers["x-goog-meta-a"], r.headers["Content-Range"]), (b"234", "b", "bytes 2-4/10"))
    equal(call("HEAD", at, 200).headers["Content-Length"], "10")
    copy = call("PUT", f"/{bucket.name}/copy", 200, x_goog_copy_source=f"/{bucket.name}/" + quote(name))
    equal(ElementTree.fromstring(copy.text).tag, "CopyObjectResult")
    listed = ElementTree.fromstring(call("GET", f"/{bucket.name}?list-type=2&prefix=plain/&encoding-type=url", 200).text)
    ns = listed.tag.removesuffix("ListBucketResult")
    equal([c.find(ns + "Key").text for c in listed.findall(ns + "Contents")], [quote(name)])
    body = b"<Delete><Object><Key>copy</Key></Object></Delete>"
    call("POST", f"/{bucket.name}?delete", 200, body, Content_MD5=base64.b64encode(hashlib.md5(body).digest()).decode())
    call("DELETE", at, 204)
    equal(ElementTree.fromstring(call("GET", at, 404).text).find("Code").text, "NoSuchKey")


def check_resumable_xml():
    at = f"/{bucket.name}/resumable"
    session = call("POST", at, 201, x_goog_resumable="start", Content_Type="text/x").headers["Location"]
    assert session.startswith(BASE + at), session
    path = session.removeprefix(BASE)
    equal(call("PUT", path, 308, b"0123", Content_Range="bytes 0-3/10").headers["Range"], "bytes=0-3")
    call("PUT", path, 200, b"456789", Content_Range="bytes 4-9/10")
    equal(bucket.blob("resumable").download_as_bytes(), b"0123456789")


if __name__ == "__main__":  # worker processes import this file
    bucket.create()
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            print("ok", name[len("check_"):], flush=True)
    sys.exit(0)
