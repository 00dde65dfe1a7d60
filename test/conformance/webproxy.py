"""A proxy that answers for hosts of the web, with certificates of its own authority."""

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import urllib.parse
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LIMIT = 64 << 10


class Authority:
    """Signs certificates of hosts."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self.folder, self.path = folder, folder / "ca.pem"
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests of tategu")])
        ca = self._builder(self.name, self.key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.path.write_bytes(ca.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self.name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))

    def certificate(self, host: str, base: Path) -> tuple[Path, Path]:
        """Make BASE.pem and BASE.key of a host, and of loopback."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = self._builder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)]), key)
        signed = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(self.key, hashes.SHA256())
        pem, private = base.with_suffix(".pem"), base.with_suffix(".key")
        pem.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pem, private


class Proxy:
    """Serves files by their URL to clients that use it as their proxy; all else is 404."""

    def __init__(self, authority: Authority, files: dict[str, bytes]):
        self.authority, self.files = authority, files
        self.contexts: dict[str, ssl.SSLContext] = {}
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def environment(self) -> dict[str, str]:
        """Variables that make a program use the proxy."""
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        return {"HTTP_PROXY": url, "HTTPS_PROXY": url, "http_proxy": url, "https_proxy": url}

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(30)
            method, target = self._request(connection)
            if method != "CONNECT":
                self._answer(connection, target)
                return
            host = target.rsplit(":", 1)[0]
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with self._context(host).wrap_socket(connection, server_side=True) as secure:
                _, path = self._request(secure)
                self._answer(secure, f"https://{host}{path}")

    @staticmethod
    def _request(connection: socket.socket) -> tuple[str, str]:
        """Read the head of a request; its body is not looked at."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(4096)
            if not piece or len(head) > LIMIT:
                raise OSError("no request")
            head += piece
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        return method, target

    def _answer(self, connection: socket.socket, url: str) -> None:
        body = self.files.get(urllib.parse.unquote(url))
        status = "404 Not Found" if body is None else "200 OK"
        body = body or b""
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)

    def _context(self, host: str) -> ssl.SSLContext:
        with self.lock:
            if host not in self.contexts:
                pem, key = self.authority.certificate(host, self.authority.folder / f"host{len(self.contexts)}")
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(pem, key)
                self.contexts[host] = context
            return self.contexts[host]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
