"""Writes images as tars of the OCI image layout, without any container tool.

Source: github.com/opencontainers/image-spec, image-layout.md, manifest.md and
config.md, v1.1.
"""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

TYPES = "application/vnd.oci.image"


def layer(files: dict[str, tuple[Path, int]], out: Path) -> Path:
    """Write a layer with files: name inside the image to (path here, mode)."""
    with tarfile.open(out, "w") as tar:
        for name, (path, mode) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = path.stat().st_size, mode
            with path.open("rb") as content:
                tar.addfile(info, content)
    return out


def digest(path: Path) -> str:
    """The digest of a file, which is not read into memory as a whole."""
    with path.open("rb") as content:
        return "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()


def compressed(path: Path) -> Path:
    """Compress a layer, as registries mostly have them."""
    out = path.with_name(path.name + ".gz")
    with path.open("rb") as content, gzip.open(out, "wb", compresslevel=1) as zipped:
        shutil.copyfileobj(content, zipped, 1 << 20)
    return out


def image(layers: list[Path], config: dict[str, object], out: Path) -> Path:
    """Write the image of some tars, the lowest first, for this machine."""
    settings = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(path) for path in layers]},
    }
    with tarfile.open(out, "w") as tar:

        def add(name: str, body: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))

        def blob(kind: str, content: object) -> dict[str, object]:
            body = json.dumps(content).encode()
            of = hashlib.sha256(body).hexdigest()
            add(f"blobs/sha256/{of}", body)
            described = {"digest": "sha256:" + of, "size": len(body)}
            return {"mediaType": f"{TYPES}.{kind}+json", **described}

        add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        described = []
        for path in map(compressed, layers):
            of, size = digest(path), path.stat().st_size
            tar.add(path, f"blobs/sha256/{of.removeprefix('sha256:')}")
            path.unlink()
            kind = f"{TYPES}.layer.v1.tar+gzip"
            described.append({"mediaType": kind, "digest": of, "size": size})
        manifest = blob(
            "manifest.v1",
            {
                "schemaVersion": 2,
                "mediaType": f"{TYPES}.manifest.v1+json",
                "config": blob("config.v1", settings),
                "layers": described,
            },
        )
        index = {"schemaVersion": 2, "manifests": [manifest]}
        add("index.json", json.dumps(index).encode())
    return out
