"""Projects of other languages, as a user would set them up: what they need is there, so none of them asks a network."""

import os
import re
import shutil
from pathlib import Path

from server import ROOT

HERE = Path(__file__).parent
TOOLS = ROOT / ".tools"
# How long a compiler may take that has two cores and little else to do.
COMPILE_SECONDS = 600


def environment(home):
    """What a program needs to find its language; nothing of the shell that runs the tests."""
    programs = ("go", "java", "mvn", "node")
    found = {program: shutil.which(program) for program in programs}
    assert all(found.values()), f"not there: {found}; tests/tools/install.sh installs them"
    directories = [str(TOOLS / "bin"), *dict.fromkeys(str(Path(path).parent) for path in found.values())]
    java = {"JAVA_HOME": os.environ["JAVA_HOME"]} if "JAVA_HOME" in os.environ else {}
    return {
        "PATH": os.pathsep.join([*directories, "/usr/bin", "/bin"]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "GOMODCACHE": str(TOOLS / "go-modules"),
        "GOCACHE": str(TOOLS / "go-cache"),
        "GOFLAGS": "-modcacherw",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        **java,
    }


def plain(text):
    """Text without the colours that Maven sets even in a pipe."""
    return re.sub(r"\x1b\[\d*m", "", text)


def link_protos(directory):
    """The protos of this checkout, where the README's commands look for them."""
    if not (directory / "proto").exists():
        (directory / "proto").symlink_to(ROOT / "proto")


def node(directory):
    """Puts the installed packages where Node.js looks for them."""
    link_protos(directory)
    (directory / "node_modules").symlink_to(TOOLS / "node/node_modules")


def go(directory):
    """Makes a module of the pinned dependencies."""
    link_protos(directory)
    for name in ("go.mod", "go.sum"):
        shutil.copy(HERE / "go" / name, directory)


def java(directory, *sources):
    """Makes a Maven project of the pinned dependencies."""
    link_protos(directory)
    shutil.copy(HERE / "java/pom.xml", directory)
    (directory / ".mvn").mkdir()
    options = ["--offline", "--batch-mode", f"-Dmaven.repo.local={TOOLS / 'maven'}"]
    (directory / ".mvn/maven.config").write_text("\n".join(options) + "\n")
    (directory / "src/main/java").mkdir(parents=True)
    for source in sources:
        shutil.copy(source, directory / "src/main/java")
