"""Unmodified clients of registries push to the server and pull from it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import NAME, PROJECT, TOOLS, built, run
from server import Server, binary
from test_images import SUM, job

pytestmark = pytest.mark.usefixtures("sdk")


def runs(image, bucket):
    """Whether an image does its work as a custom job."""
    place = f"/gcs/{bucket.name}"
    done = job(image, "sum", f"{place}/numbers.txt", f"{place}/sum.txt")
    done.run()
    return bucket.blob("sum.txt").download_as_text() == SUM


def test_crane_pulls_and_pushes(crane, image, bucket, tmp_path):
    assert run(crane, "digest", image.reference).strip() == image.digest
    pulled = tmp_path / "pulled"
    run(crane, "pull", "--format=oci", image.reference, pulled)
    copy = image.reference.removesuffix(":v1") + "-crane:v2"
    run(crane, "push", pulled, copy)
    assert run(crane, "digest", copy).strip() == image.digest
    run(crane, "validate", "--remote", copy)
    assert runs(copy, bucket)


class Docker:
    """A Docker of its own, which trusts a server's certificate by its name.

    The daemon has its own mounts: its certificates and names are not the machine's.
    prefix is what starts it elsewhere; address is the server's there.
    """

    def __init__(self, folder, server, address, *prefix):
        self.host = f"{NAME}:{address.rpartition(':')[2]}"
        trusted = folder / "etc/certs.d" / self.host
        trusted.mkdir(parents=True)
        shutil.copy(server.data / "ca/ca.pem", trusted / "ca.crt")
        hosts = f"127.0.0.1 localhost\n{address.rpartition(':')[0]} {NAME}\n"
        (folder / "hosts").write_text(hosts)
        os.makedirs("/etc/docker", exist_ok=True)
        self.env = {
            **TOOLS,
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_CONFIG": str(folder / "client"),
            "DOCKER_BUILDKIT": "0",
        }
        self.log = folder / "log"
        command = [*prefix, "unshare", "--mount", "sh", "-c", START, "sh", str(folder)]
        with self.log.open("wb") as log:
            self.daemon = subprocess.Popen(command, env=TOOLS, stdout=log, stderr=log)

    def __call__(self, *words, **more):
        return run("docker", *words, env=self.env, **more)

    def __enter__(self):
        if why := self._unready():
            text = self.log.read_text(errors="replace")[-2000:]
            self.__exit__()
            pytest.skip(f"no docker daemon can be started here: {why}\n{text}")
        return self

    def __exit__(self, *_):
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(60)

    def _unready(self):
        """Wait for the daemon; why it does not come, or nothing."""
        deadline, why = time.monotonic() + 60, "it was not asked"
        while time.monotonic() < deadline:
            if self.daemon.poll() is not None:
                return f"dockerd ended with {self.daemon.returncode}"
            try:
                self("version")
            except RuntimeError as error:
                why = str(error)
                time.sleep(0.1)
            else:
                return ""
        return why


START = """
mount --bind "$1/etc" /etc/docker && mount --bind "$1/hosts" /etc/hosts &&
exec dockerd \\
  --iptables=false --ip6tables=false --bridge=none --data-root "$1/data" \\
  --exec-root "$1/exec" --pidfile "$1/pid" -H "unix://$1/docker.sock"
"""


def need(*programs):
    """Skip where a program, or root, is missing."""
    for program in programs:
        if shutil.which(program, path=TOOLS.get("PATH")) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("dockerd is run as root here")


@pytest.fixture(scope="module")
def docker(server, tmp_path_factory):
    """Docker beside the server."""
    need("docker", "dockerd", "unshare")
    folder = tmp_path_factory.mktemp("docker")
    with Docker(folder, server, server.address) as docker:
        yield docker


def test_docker_pulls_and_pushes_over_tls(docker, image, bucket):
    name = f"{docker.host}/{image.reference.partition('/')[2]}"
    docker("pull", name)
    (about,) = json.loads(docker("image", "inspect", name))
    assert about["RepoDigests"] == [f"{name.removesuffix(':v1')}@{image.digest}"]
    copy = f"{name.removesuffix(':v1')}-docker:v2"
    docker("tag", name, copy)
    docker("push", copy)
    assert runs(copy, bucket)
    docker("image", "rm", "--force", about["Id"])


@pytest.mark.parametrize("image", ["rust"], indirect=True)
def test_docker_builds_on_an_image_of_ours(docker, image, bucket, tmp_path):
    name = f"{docker.host}/{image.reference.partition('/')[2]}"
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nENV MADE_BY=docker\n")
    built = f"{docker.host}/team/built:v1"
    docker("build", "--quiet", "-t", built, tmp_path)
    docker("push", built)
    assert runs(built, bucket)


@pytest.fixture
def elsewhere(tmp_path):
    """A server that takes nobody for its operator, and a Docker that knows it.

    Both are in a network namespace, at an address that is not loopback.
    """
    need("docker", "dockerd", "unshare", "nsenter", "ip")
    space, address = f"tategu-d{os.getpid()}", "10.199.78.1"
    run("ip", "netns", "add", space)
    try:
        run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", space, "address", "add", f"{address}/32", "dev", "lo")
        # `ip netns exec` would hide the control groups that dockerd needs.
        inside = ("nsenter", f"--net=/run/netns/{space}")
        outside = f"{address}:8443"
        listen = ("--listen", "0.0.0.0:8443", "--public", outside)
        listen += ("--hosts", NAME, "--project", PROJECT)
        with contextlib.ExitStack() as stack:
            server = Server(tmp_path, args=listen, prefix=inside)
            stack.enter_context(server)
            docker = stack.enter_context(Docker(tmp_path, server, outside, *inside))

            def login(role):
                token = run(
                    *(*inside, binary(), "token", "create", "--role", role),
                    *("--project", PROJECT, "--email", f"{role}@example.com"),
                    *("--data", server.data),
                )
                words = ("login", docker.host, "-u", role, "--password-stdin")
                docker(*words, input=token)

            yield docker, login
    finally:
        run("ip", "netns", "delete", space)


def test_docker_login(elsewhere, tmp_path):
    docker, login = elsewhere
    (tmp_path / "context").mkdir()
    shutil.copy(built(), tmp_path / "context/rustserver")
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\nCOPY rustserver /\n")
    name = f"{docker.host}/team/app:v1"
    docker("build", "--quiet", "-t", name, tmp_path / "context")
    with pytest.raises(RuntimeError, match="unauthorized: a token"):
        docker("push", name)
    with pytest.raises(RuntimeError, match="(?i)unauthorized"):
        docker("login", docker.host, "-u", "me", "--password-stdin", input="wrong")
    login("viewer")
    with pytest.raises(RuntimeError, match="denied"):
        docker("push", name)
    login("user")
    docker("push", name)
    docker("image", "rm", name)
    login("viewer")
    docker("pull", name)
    docker("logout", docker.host)
    with pytest.raises(RuntimeError, match="unauthorized: a token"):
        docker("pull", name)
