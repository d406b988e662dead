"""The README's tour: its lines, run as they stand there but for the ports, which are other ones."""

import json
import re

import pytest

import projects
from browser import serving
from contract import checked
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
EXPORT = block(section("A whole run", "###"), "sh")
NODE = block(section("Node", "###"), "js")
GO = block(section("Go", "###"), "go")
JAVA = block(section("Java", "###"), "java")
PAGE = block(section("A page", "###"), "html")


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
    assert [text.count(GRPC) for text in (GRPCURL, EMIT, NODE, GO, JAVA)] == [1] * 5
    assert [text.count(HTTP) for text in (READ, NODE, PAGE)] == [1] * 3


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
        ["researcher", "r1", "tool_executing", "#2", "search", '{"page":3}'],
    ], tail


def test_a_socket_brings_the_frames(shell, here, stubs):
    grpcurl(shell, here)
    emit(shell, here)
    script = f"{here(READ)}\nasyncio.run(read({token(shell, READ_TOKEN)!r}))\n"
    read = shell.start("python", "-c", script, PYTHONUNBUFFERED="1")
    read.until("two events", lambda: len(read.frames) == 2)
    frames = [checked(json.loads(text)) for text in read.out]
    assert frames[0]["type"] == "connection_established" and frames[0]["user_id"] == "demo", read
    assert [(frame["type"], frame["offset"], frame["run_id"]) for frame in read.frames] == [
        ("agent_started", 1, "r1"),
        ("tool_executing", 2, "r1"),
    ]
    assert read.frames[1]["event_id"] == "call-17" and read.frames[1]["payload"]["parameters"] == {"page": 3}, read


WHOLE_RUN = ["agent_started", "agent_thinking", "agent_completed"]


@pytest.mark.parametrize("lines", [NODE, GO, JAVA, PAGE])
def test_a_whole_run_takes_less_than_fifteen_lines(lines):
    assert len(lines.splitlines()) < 15, lines


@pytest.fixture
def program(shell):
    """Starts one of the programs, by its command, after the line that makes its token."""
    shell.environment |= projects.environment(shell.directory / "home")
    return lambda command: shell.start("sh", "-c", f"{PREPARED}{EXPORT}{command}")


def within_main(language, name, lines):
    """The lines where the file has a comment in their place."""
    file = (projects.HERE / language / name).read_text()
    assert file.count("// The lines of the README.\n") == 1, file
    return file.replace("// The lines of the README.\n", lines)


def assert_told(tour):
    """It prints protobuf's texts of three receipts, and then of the three events that were read."""
    numbers = lambda: re.findall(r"run_sequence:\s*(\d)", "\n".join(tour.out))
    tour.until("six numbers", lambda: len(numbers()) == 6, projects.COMPILE_SECONDS)
    told = projects.plain("\n".join(tour.out))
    assert numbers() == ["1", "2", "3"] * 2, tour
    assert re.findall(r"(agent_started|agent_thinking|agent_completed)\s*:?\s*{", told) == WHOLE_RUN, told
    assert [re.search(rf'{field}:\s*"(.*?)"', told)[1] for field in ("reasoning", "message")] == ["Easy", "Done"], told


def node(shell, here, program):
    projects.node(shell.directory)
    (shell.directory / "tour.mjs").write_text(here(NODE))
    return program(inline(section("Node", "###"), "node "))


def test_node_emits_and_reads_a_whole_run(shell, here, program):
    tour = node(shell, here, program)
    tour.until("three events", lambda: len(tour.frames) == 3)
    assert [(frame["type"], frame["run_sequence"]) for frame in tour.frames] == list(zip(WHOLE_RUN, [1, 2, 3])), tour
    assert [frame["payload"] for frame in tour.frames] == [{}, {"reasoning": "Easy"}, {"message": "Done"}], tour
    assert tour.err == [], tour


def test_node_reports_refusals_inside_an_answer_that_is_ok(shell, here, program):
    # Without its start every event of the run is refused.
    started = "{ agentStarted: {} }, "
    assert started in NODE
    tour = node(shell, lambda lines: here(lines).replace(started, ""), program)
    tour.until("two refusals", lambda: "\n".join(tour.err).count("RUN_NOT_STARTED") == 2)


def test_npm_installs_what_is_tested():
    packages = set(inline(section("Node", "###"), "npm install ").split()[2:])
    tested = json.loads((ROOT / "tests/tools/package.json").read_text())["devDependencies"]
    assert packages == set(re.findall('from "(.*)";', NODE)) and packages <= tested.keys(), packages


def test_go_emits_and_reads_a_whole_run(shell, here, program):
    projects.go(shell.directory)
    stubs = program(inline(section("Go", "###"), "protoc "))
    assert stubs.ended(projects.COMPILE_SECONDS) == 0, stubs
    (shell.directory / "tour.go").write_text(within_main("go", "tour.go.in", here(GO)))
    assert_told(program(inline(section("Go", "###"), "go run ")))


def test_java_emits_and_reads_a_whole_run(shell, here, program):
    projects.java(shell.directory)
    (shell.directory / "src/main/java/Tour.java").write_text(within_main("java", "Tour.java.in", here(JAVA)))
    assert_told(program(inline(section("Java", "###"), "mvn ")))


def test_a_page_shows_a_whole_run(shell, here, program, chromium):
    (shell.directory / "site").mkdir()
    (shell.directory / "site/page.html").write_text(here(PAGE))
    token = shell.paste(f'{PREPARED}{EXPORT}echo "$TOKEN"\n').out[0]
    with serving(shell.directory / "site") as address:
        page = chromium.open(f"{address}/page.html#{token}")
        node(shell, here, program)
        log = 'document.getElementById("log").textContent'
        page.until(f"{log}.trim().split('\\n').length >= 3", log)
        assert page.tell(log).splitlines() == [
            "writer agent_started {}",
            'writer agent_thinking {"reasoning":"Easy"}',
            'writer agent_completed {"message":"Done"}',
        ]
