"""One server for all tests, driven only by what anybody can install: nothing here knows its code."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from browser import Chromium
from people import Person
from server import ROOT, Server
from shell import CONFIG_SECRET, Shell

# The tools that tests/tools/install.sh installed.
os.environ["PATH"] = os.pathsep.join(
    [
        *(str(ROOT / ".tools" / directory) for directory in ("bin", "go/bin", "node/node_modules/.bin")),
        os.environ["PATH"],
    ]
)
# Its tests are inherited: what their asserts compared is to be shown.
pytest.register_assert_rewrite("clients")


@pytest.fixture(scope="session")
def server(tmp_path_factory, pytestconfig):
    server = Server(tmp_path_factory.mktemp("server"))
    pytestconfig.stash[RUNNING] = server
    server.start()
    try:
        yield server
    finally:
        server.stop()
    server.assert_clean()


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """The Python stubs, generated from the protos as any user would."""
    out = tmp_path_factory.mktemp("stubs")
    proto = ROOT / "proto"
    files = sorted(str(path.relative_to(proto)) for path in (proto / "emitter" / "v1").glob("*.proto"))
    assert files
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", f"--python_out={out}", f"--grpc_python_out={out}"]
        + files,
        check=True,
        timeout=120,
    )
    sys.path.insert(0, str(out))
    modules = {Path(file).stem: importlib.import_module(f"emitter.v1.{Path(file).stem}_pb2") for file in files}
    grpc_modules = {
        stem: importlib.import_module(f"emitter.v1.{stem}_pb2_grpc") for stem in ("event_emitter", "event_subscriber")
    }
    # One namespace for all messages, enums and stubs: the files they come from are not the tests' business.
    names = {}
    for module in [*modules.values(), *grpc_modules.values()]:
        names.update({name: value for name, value in vars(module).items() if not name.startswith("_")})
    return SimpleNamespace(**names)


@pytest.fixture
def shell(tmp_path):
    """A terminal in a directory of its own."""
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        shell.close()


@pytest.fixture
def dev(shell):
    """`emitter dev`, running."""
    return shell.dev()


@pytest.fixture
def config(shell, tmp_path):
    """A config that works, and whose secret no program prints."""
    shell.keeps(CONFIG_SECRET)
    (tmp_path / "secret").write_text(CONFIG_SECRET + "\n")
    file = tmp_path / "emitter.toml"
    listen = "".join(f'{name}_listen = "127.0.0.1:0"\n' for name in ("grpc", "http", "admin"))
    file.write_text(listen + 'drain = "5s"\n[auth]\nissuer = "platform"\nsecret_file = "secret"\n')
    return file


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    chromium = Chromium(tmp_path_factory.mktemp("chromium"))
    try:
        yield chromium
    finally:
        chromium.close()


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


@pytest.fixture
def person(server):
    """Somebody at a screen."""
    return Person(server)


@pytest.fixture
def other(server):
    """Somebody else."""
    return Person(server)


RUNNING = pytest.StashKey[Server]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows what the server logged with each failure."""
    report = yield
    if report.failed and (server := item.config.stash.get(RUNNING, None)):
        report.sections.append(("server's log, its end", server.log_tail()))
    return report
