"""What tests/tools/install.sh does on machines that have some of the tools: the real script, on a PATH of stand-ins."""

import os
import shutil
import subprocess

import pytest

from server import ROOT

# What the script itself calls.
COREUTILS = (
    "bash cat chmod cp cut dirname env find flock grep ln mkdir mktemp paste readlink rm sed sh sha256sum sleep sort touch"
).split()

APT_GET = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
    -o) shift ;;
    --simulate) simulate=yes ;;
    -*) ;;
    update | install | download) verb=$1 ;;
    *) packages="$packages $1" ;;
    esac
    shift
done
case $verb in
install) [ "$simulate" ] && cat "$MACHINE/would-install" ;;
download) for package in $packages; do echo "$package" | tee -a "$MACHINE/downloaded" >"$package.deb"; done ;;
esac
"""

DPKG_DEB = """#!/bin/sh
cp -R "$MACHINE/packages/$(cat "$2")/." "$3"
"""

# As Debian has them: the server is a link into a package that it depends on.
PACKAGES = {
    "redis-server": {"usr/bin/redis-server": "redis-check-rdb"},
    "redis-tools": {
        "usr/bin/redis-check-rdb": ["Redis server v=7.0.15 sha=00000000:0"],
        "usr/bin/redis-cli": ["redis-cli 7.0.15"],
    },
    "liblzf1": {"usr/lib/liblzf.so.1": [""]},
    "haproxy": {"usr/sbin/haproxy": ["HAProxy version 2.6.12-1 2023/12/16"]},
    "strace": {"usr/bin/strace": ["strace -- version 6.1"]},
    "systemd": {"usr/bin/systemd-analyze": ["systemd 252 (252.38-1)"]},
}


def program(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    path.chmod(0o755)


class Machine:
    """A checkout with the installer, and a PATH with nothing but what the script calls and what is put there."""

    def __init__(self, directory):
        self.directory = directory
        self.bin = directory / "bin"
        self.tools = directory / "checkout/.tools"
        script = directory / "checkout/tests/tools/install.sh"
        script.parent.mkdir(parents=True)
        shutil.copy(ROOT / "tests/tools/install.sh", script)
        self.script = script
        self.bin.mkdir()
        for name in COREUTILS + ["tee"]:
            (self.bin / name).symlink_to(shutil.which(name))
        for name, text in [("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)]:
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        for name in ["cargo", "cc"]:
            program(self.bin / name, [])
        for package, files in PACKAGES.items():
            for path, content in files.items():
                file = directory / "packages" / package / path
                if isinstance(content, list):
                    program(file, content)
                else:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.symlink_to(content)

    def has(self, name, *lines):
        """Puts a program on the PATH that prints this."""
        program(self.bin / name, lines)

    def install(self, *tools, would_install=()):
        """Runs the installer, and returns the packages that it downloaded. An installation would add those others."""
        (self.directory / "would-install").write_text("".join(f"Inst {name} (1.0 Debian)\n" for name in would_install))
        downloaded = self.directory / "downloaded"
        downloaded.write_text("")
        ran = subprocess.run(
            [self.bin / "bash", self.script, *tools],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, ran
        return sorted(downloaded.read_text().split())

    def environment(self, *before):
        path = os.pathsep.join(map(str, [*before, self.bin]))
        return {"PATH": path, "MACHINE": str(self.directory)}

    def prints(self, *command):
        """What a program prints that the tests find."""
        environment = self.environment(self.tools / "bin")
        found = shutil.which(command[0], path=environment["PATH"])
        assert found, f"{command[0]} is not there"
        ran = subprocess.run([found, *command[1:]], env=environment, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran
        return ran.stdout.strip()

    def own(self):
        """The programs that were installed for the tests alone."""
        return sorted(path.name for path in (self.tools / "bin").iterdir())


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


REDIS_7 = "Redis server v=7.2.4 sha=00000000:0"


def assert_redis_is_unpacked(machine):
    assert machine.own() == ["redis-cli", "redis-server"]
    assert machine.prints("redis-server", "--version") == "Redis server v=7.0.15 sha=00000000:0"
    assert machine.prints("redis-cli", "--version") == "redis-cli 7.0.15"


def test_redis_is_unpacked_with_all_that_it_lacks(machine):
    would_install = ["liblzf1", "redis-tools", "redis-server"]
    assert machine.install("redis", would_install=would_install) == sorted(would_install)
    assert_redis_is_unpacked(machine)
    # What is there is left alone.
    assert machine.install("redis") == []
    assert_redis_is_unpacked(machine)


def test_redis_server_is_unpacked_where_only_redis_tools_is_installed(machine):
    """apt believes redis-tools present; the server is a link into it."""
    machine.has("redis-cli", "redis-cli 7.0.15")
    assert machine.install("redis", would_install=["redis-server"]) == ["redis-server", "redis-tools"]
    assert_redis_is_unpacked(machine)


def test_redis_is_unpacked_where_the_installed_one_is_not_complete(machine):
    machine.has("redis-server", REDIS_7)
    assert machine.install("redis") == ["redis-server", "redis-tools"]
    assert_redis_is_unpacked(machine)


def test_redis_is_unpacked_where_the_installed_one_is_too_old(machine):
    machine.has("redis-server", "Redis server v=6.0.16 sha=00000000:0")
    machine.has("redis-cli", "redis-cli 6.0.16")
    assert machine.install("redis", would_install=[]) == ["redis-server", "redis-tools"]
    assert_redis_is_unpacked(machine)


def test_redis_that_is_installed_is_used(machine):
    machine.has("redis-server", REDIS_7)
    machine.has("redis-cli", "redis-cli 7.2.4")
    assert machine.install("redis") == []
    assert machine.own() == []
    assert machine.prints("redis-server", "--version") == REDIS_7


def test_a_copy_of_our_own_gives_way_to_what_was_installed_since(machine):
    machine.install("redis", would_install=["redis-tools", "redis-server"])
    machine.has("redis-server", REDIS_7)
    machine.has("redis-cli", "redis-cli 7.2.4")
    assert machine.install("redis") == []
    assert machine.prints("redis-server", "--version") == REDIS_7


# Tool, program, what a fitting version prints, what one prints that does not fit.
OTHERS = [
    ("haproxy", "haproxy", "HAProxy version 3.0.5-8e879a5 2024/09/19", "HA-Proxy version 2.2.9-2 2021/05/12"),
    ("strace", "strace", "strace -- version 6.8", "strace -- version 4.26"),
    ("systemd", "systemd-analyze", "systemd 255 (255.4-1ubuntu8)", "systemd 247 (247.3-7)"),
]


@pytest.mark.parametrize(("tool", "name", "fitting", "other"), OTHERS, ids=[other[0] for other in OTHERS])
def test_other_programs_are_used_or_unpacked(machine, tool, name, fitting, other):
    machine.has(name, other)
    assert machine.install(tool) == [tool]
    assert machine.own() == [name] and machine.prints(name) not in (fitting, other)
    machine.has(name, fitting)
    assert machine.install(tool) == []
    assert machine.own() == [] and machine.prints(name) == fitting


@pytest.mark.parametrize(
    ("tool", "prints"), [("cargo-deny", "cargo-deny 0.20.7"), ("grpcurl", "grpcurl v1.9.4")], ids=["cargo-deny", "grpcurl"]
)
def test_what_would_be_built_is_used(machine, tool, prints):
    """Cargo and Go are stand-ins that build nothing."""
    machine.has(tool, prints)
    assert machine.install(tool) == []
    assert machine.own() == [] and machine.prints(tool) == prints
