"""The README's tour: its lines, run as they stand there but for the ports, which are other ones."""

import json
import re

import pytest

from server import ROOT
from shell import Shell

README = (ROOT / "README.md").read_text()
GRPC, HTTP = "127.0.0.1:50051", "127.0.0.1:8080"


def section(title, level="##"):
    """What stands below a heading, up to the next one of its level or above."""
    found = re.search(rf"^{level} {title}\n(.*?)(?=^#{{2,{len(level)}}} |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no section {title}"
    return found[1]


def block(text, language):
    """The one block of that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def inline(text, beginning):
    """The one command in backticks that begins so."""
    (found,) = {code for code in re.findall(r"`([^`\n]+)`", text) if code.startswith(beginning)}
    return found


TOUR = section("A tour")
# What comes before the first part.
PREPARED = block(TOUR.split("###")[0], "sh")
GRPCURL = block(section("grpcurl", "###"), "sh")
PROTOC = inline(section("Python", "###"), "python -m grpc_tools.protoc ")
EMIT_TOKEN = inline(section("Python", "###"), "emitter token ")
EMIT = block(section("Python", "###"), "python")
TAIL = block(section("Reading it", "###"), "sh")
READ_TOKEN = inline(section("Reading it", "###"), "emitter token ")
READ = block(section("Reading it", "###"), "python")


@pytest.fixture
def shell(tmp_path):
    """A shell in a checkout in which the service was built."""
    shell = Shell(tmp_path)
    (tmp_path / "proto").symlink_to(ROOT / "proto")
    (tmp_path / "target/release").mkdir(parents=True)
    (tmp_path / "target/release/emitter").symlink_to(shell.emitter)
    try:
        yield shell
    finally:
        shell.close()


@pytest.fixture
def here(shell):
    """Puts the addresses of a running service where the README has those of `emitter dev`."""
    dev = shell.dev()
    return lambda text: text.replace(GRPC, dev.grpc).replace(HTTP, dev.http)


@pytest.fixture
def stubs(shell):
    shell.paste(PROTOC)


def grpcurl(shell, here):
    return json.loads("\n".join(shell.paste(PREPARED + here(GRPCURL)).out))


def token(shell, command):
    return shell.paste(f"{PREPARED}{command}\n").out[0]


def emit(shell, here):
    """What the Python block prints."""
    script = f"token = {token(shell, EMIT_TOKEN)!r}\n" + here(EMIT)
    return shell.run("python", "-", stdin=script).out


def test_the_addresses_are_those_of_dev(shell):
    for address in (GRPC, HTTP):
        assert address in "\n".join(shell.run("emitter", "dev", "--help").out)
    assert GRPCURL.count(GRPC) == EMIT.count(GRPC) == READ.count(HTTP) == 1


def test_grpcurl_gets_a_receipt(shell, here):
    answer = grpcurl(shell, here)
    receipt = answer["receipt"]
    assert receipt["eventId"] and re.fullmatch("[0-9a-f]{16}", receipt["position"]["epoch"]), answer
    # As the README shows it, with its three dots for what differs each time.
    shown = inline(section("grpcurl", "###"), '{"receipt"')
    shown = re.escape(shown).replace(re.escape(', …}}'), ".*}}").replace("…", "[^\"]+")
    assert re.fullmatch(shown, json.dumps(answer)), (shown, answer)


def test_python_gets_a_receipt_and_then_the_same_as_a_duplicate(shell, here, stubs):
    grpcurl(shell, here)
    assert emit(shell, here) == ["2 False"]
    assert emit(shell, here) == ["2 True"]


def test_tail_shows_what_was_emitted(shell, here, stubs):
    grpcurl(shell, here)
    emit(shell, here)
    tail = shell.start("sh", "-c", PREPARED + TAIL)
    tail.until("two events", lambda: len(tail.out) == 2)
    lines = [text.split("  ")[1:] for text in tail.out]
    assert lines == [
        ["researcher", "r1", "agent_started", "Looking into it"],
        # The run's agent is known from its first event.
        ["researcher", "r1", "tool_executing", "search", *lines[1][4:-1], '{"page":3}'],
    ], tail


def test_a_socket_brings_the_frames(shell, here, stubs):
    grpcurl(shell, here)
    emit(shell, here)
    script = f"{here(READ)}\nasyncio.run(read({token(shell, READ_TOKEN)!r}))\n"
    read = shell.start("python", "-c", script, PYTHONUNBUFFERED="1")
    read.until("two events", lambda: len(read.frames) == 2)
    frames = [json.loads(text) for text in read.out]
    assert frames[0]["type"] == "connection_established" and frames[0]["user_id"] == "u1", read
    assert [(frame["type"], frame["offset"], frame["run_id"]) for frame in read.frames] == [
        ("agent_started", 1, "r1"),
        ("tool_executing", 2, "r1"),
    ]
    assert read.frames[1]["event_id"] == "call-17" and read.frames[1]["payload"]["parameters"] == {"page": 3}, read
