"""Java's stock gRPC: grpc-java, with stubs that its Maven plugins made of the protos."""

import pytest

import projects
from clients import Clients, Told


@pytest.fixture(scope="module")
def told(server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("java")
    projects.java(directory, projects.HERE / "java/Client.java")
    return Told(server, directory, "mvn", "--quiet", "compile", "exec:java", "-Dexec.mainClass=Client")


class TestJava(Clients):
    pass
