"""The commands behind a proxy that ends TLS, as in front of a service on the web."""

import json
import socket
import subprocess

import pytest

from shell import SECONDS, lasting_ports

CONFIG = """
global
  maxconn 100
defaults
  mode http
  timeout connect 10s
  timeout client 1m
  timeout server 1m
frontend grpc
  bind 127.0.0.1:{grpc} ssl crt {directory}/both.pem alpn h2
  default_backend grpc
backend grpc
  server one {dev.grpc} proto h2
frontend http
  bind 127.0.0.1:{http} ssl crt {directory}/both.pem alpn http/1.1
  default_backend http
backend http
  server one {dev.http}
"""


def certificates(directory):
    """A CA, `ca.crt`, and a certificate by it for localhost with its key, `both.pem`."""
    script = """
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=tests
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=proxy
        printf 'subjectAltName=DNS:localhost\n' > names
        openssl x509 -req -days 2 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -extfile names
        cat server.crt server.key > both.pem
    """
    subprocess.run(["sh", "-ec", script], cwd=directory, check=True, capture_output=True, timeout=SECONDS)


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def proxy(shell, dev, tmp_path):
    """Flags that lead the commands to the service through the proxy."""
    certificates(tmp_path)
    grpc, http = (int(flag.rpartition(":")[2]) for flag in lasting_ports()[:2])
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(grpc=grpc, http=http, directory=tmp_path, dev=dev))
    shell.run("haproxy", "-c", "-f", config)
    running = shell.start("haproxy", "-db", "-f", config)
    while not (is_open(grpc) and is_open(http)):
        assert running.process.poll() is None, running
    return ["--grpc", f"https://localhost:{grpc}"], ["--http", f"https://localhost:{http}"]


def test_every_command_works_behind_a_proxy_that_ends_tls(shell, proxy):
    grpc, http = proxy
    trusted = ["--ca-file", "ca.crt"]
    event = ["--user", "demo", "--run", "r1", "--type"]
    shell.run("emitter", "emit", *grpc, *trusted, *event, "agent_started", "--agent", "writer")
    shell.run("emitter", "emit", *grpc, *trusted, *event, "agent_completed", "--message", "Done")
    listed = shell.run("emitter", "runs", "--json", *grpc, *trusted).out
    assert [json.loads(run)["state"] for run in listed] == ["completed"], listed
    shown = shell.run("emitter", "runs", "show", "r1", *grpc, EMITTER_CA_FILE="ca.crt").out
    assert shown[0] == "run r1  completed", shown
    shell.run("emitter", "usage", *grpc, *trusted)
    read = shell.run(
        "emitter", "tail", "--json", "--user", "demo", "--from", "oldest", "--count", "2", *http, *trusted
    )
    assert [frame["type"] for frame in read.frames] == ["agent_started", "agent_completed"], read


def test_a_certificate_that_nobody_vouches_for_is_refused(shell, proxy):
    grpc, _ = proxy
    refused = shell.run("emitter", "runs", *grpc, exits=1)
    assert any("certificate" in line for line in refused.err), refused
    other = shell.run("emitter", "runs", *grpc, "--ca-file", "not-there.crt", exits=1)
    assert other.err == ["error: --ca-file: not-there.crt: No such file or directory (os error 2)"], other
