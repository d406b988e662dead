"""Go's stock gRPC: grpc-go, with stubs that protoc-gen-go and protoc-gen-go-grpc made of the protos."""

import subprocess

import pytest

import projects
from clients import Clients, Told


@pytest.fixture(scope="module")
def told(server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("go")
    projects.go(directory)
    subprocess.run(
        "protoc -I proto --go_out=. --go_opt=paths=source_relative"
        " --go-grpc_out=. --go-grpc_opt=paths=source_relative proto/emitter/v1/*.proto",
        shell=True,
        check=True,
        cwd=directory,
        env=projects.environment(directory),
        timeout=projects.COMPILE_SECONDS,
    )
    return Told(server, directory, "go", "run", projects.HERE / "go/client.go")


class TestGo(Clients):
    pass
