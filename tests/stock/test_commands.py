"""The commands, run as a person or a script runs them."""

import base64
import hashlib
import hmac
import json
import re
import time

import pytest

from contract import checked
from people import Run
from server import base64url
from shell import ANY_PORTS, lasting_ports

COMMANDS = [
    "dev", "serve", "emit", "tail", "runs", "usage", "connections", "disconnect", "sources", "token", "check-config", "repair",
]


def line(n, **fields):
    """An event as a line for `emit`."""
    event = {"type": "agent_thinking", "user_id": "demo", "run_id": "r1", "event_id": f"e{n}"}
    return json.dumps({**event, "payload": {"reasoning": f"thought {n}"}, **fields}) + "\n"


def start(n, **fields):
    """The line that begins the run of `line`."""
    return line(n, type="agent_started", agent_name="a", payload={"message": f"thought {n}"}, **fields)


def answers(program, kind="receipt"):
    """What `emit --json` printed, which is all of this kind."""
    parsed = [json.loads(text) for text in program.out]
    assert all(list(answer) == [kind] for answer in parsed), program
    return [answer[kind] for answer in parsed]


def read_back(shell, user, count):
    """The first events of a user."""
    frames = shell.run("emitter", "tail", "--json", "--user", user, "--from", "oldest", "--count", str(count)).frames
    assert len(frames) == count, frames
    return frames


# dev


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        pytest.param([], {}, id="at its usual place"),
        pytest.param(["--session-file", "my session's"], {}, id="named by a flag"),
        pytest.param([], {"EMITTER_SESSION_FILE": "named/by-variable"}, id="named by a variable"),
    ],
)
def test_what_dev_prints_works_as_printed(shell, tmp_path, flags, variables):
    dev = shell.start("emitter", "dev", *ANY_PORTS, *flags, **variables)
    dev.until("the lines to paste", lambda: "EOF" in dev.out)
    (tail_line,) = [text for text in dev.out if " tail " in text]
    run_lines = "\n".join(dev.out[[text.startswith("RUN=") for text in dev.out].index(True) : dev.out.index("EOF") + 1])
    (session,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    shell.keeps(json.loads(session.read_text())["secret"])
    assert session.stat().st_mode & 0o777 == 0o600

    # Another terminal is in another directory, and has only the variables that every terminal has.
    tail = shell.start("sh", "-c", f"cd /\n{tail_line}")
    receipts = []
    for _ in range(2):
        answer = json.loads("\n".join(shell.paste(f"cd /\n{run_lines}\n").out))
        assert list(answer) == ["results"], answer
        receipts += [result["receipt"] for result in answer["results"]]
    assert [receipt["runSequence"] for receipt in receipts] == ["1", "2", "3", "4", "5"] * 2
    assert [receipt["position"]["offset"] for receipt in receipts] == [str(n) for n in range(1, 11)]
    assert len({receipt["eventId"] for receipt in receipts}) == 10

    tail.until("ten events", lambda: len(tail.out) >= 10)
    columns = [text.split("  ") for text in tail.out]
    assert [column[3] for column in columns] == Run.TYPES * 2, tail
    assert all(column[1] == "researcher" for column in columns), tail
    runs = [column[2] for column in columns]
    assert runs == [runs[0]] * 5 + [runs[5]] * 5 and runs[0] != runs[5], tail
    assert columns[0][4] == "Looking into it" and columns[9][4:] == ["Three documents say so", "1200 ms"], tail

    dev.terminate()
    assert dev.ended() == 0, dev
    tail.until("news of the end", lambda: "the server closes: DRAINING" in tail.err)
    assert len(tail.out) == 10, tail


def test_tokens_outlive_dev(shell):
    """The secret stays with the session file, so that what was pasted yesterday works today."""
    first = shell.dev()
    token = shell.run("emitter", "token", "--sub", "agents", "--scope", "emit").out[0]
    first.program.terminate()
    assert first.program.ended() == 0, first.program
    second = shell.dev()
    flags = ["--user", "demo", "--run", "r1", "--type", "agent_started", "--agent", "a"]
    shell.run("emitter", "emit", "--grpc", f"http://{second.grpc}", "--token", token, *flags)


# emit


def test_flags_become_events(shell, dev):
    of_run = ["emitter", "emit", "--user", "demo", "--run", "r1"]
    emits = [
        [*of_run, "--type", "agent_started", "--agent", "researcher", "--thread", "t1", "--message", "On it"],
        [*of_run, "--type", "tool_executing", "--tool", "search", "--call", "c1", "--data", '{"parameters": {"q": "x"}}'],
        [*of_run, "--type", "agent_completed", "--event-id", "mine", "--message", "Done"],
        ["emitter", "emit", "--user", "demo", "--type", "cart.updated", "--data", '{"items": 3}'],
    ]
    told = [shell.run(*emit).out for emit in emits]
    frames = read_back(shell, "demo", 4)
    assert [frame["type"] for frame in frames] == ["agent_started", "tool_executing", "agent_completed", "cart.updated"]
    assert [frame["payload"] for frame in frames] == [
        {"message": "On it"},
        {"tool_call_id": "c1", "call_sequence": 2, "tool_name": "search", "parameters": {"q": "x"}},
        {"message": "Done"},
        {"items": 3},
    ]
    for frame in frames[:3]:
        assert (frame["run_id"], frame["agent_name"], frame["thread_id"]) == ("r1", "researcher", "t1"), frame
    assert frames[2]["event_id"] == "mine" and frames[3]["custom"] is True, frames
    assert told == [
        [
            f"stored   {frame['event_id']}  at {frame['epoch']}-{frame['offset']}"
            f"  run_sequence {frame.get('run_sequence', 0)}"
        ]
        for frame in frames
    ]


@pytest.mark.parametrize("flag", ["-", "--stdin"])
def test_lines_become_events(shell, dev, flag):
    lines = start(0) + "".join(line(n) for n in range(1, 7)) + "\n" + '{"type": "connection_heartbeat"}\n'
    emit = shell.run("emitter", "emit", flag, "--json", "--batch", "3", stdin=lines)
    receipts = answers(emit)
    assert [receipt["event_id"] for receipt in receipts] == [f"e{n}" for n in range(7)]
    assert [receipt["offset"] for receipt in receipts] == list(range(1, 8))
    assert [receipt["run_sequence"] for receipt in receipts] == list(range(1, 8))
    frames = read_back(shell, "demo", 7)
    assert [frame["payload"]["reasoning"] for frame in frames[1:]] == [f"thought {n}" for n in range(1, 7)]


def test_a_line_is_answered_before_the_next_is_there(shell, dev):
    emit = shell.start("emitter", "emit", "-", "--json")
    for n in range(1, 4):
        emit.write(line(n) if n > 1 else start(n))
        emit.until(f"answer {n}", lambda: len(emit.out) == n)
    emit.process.stdin.close()
    assert emit.ended() == 0, emit
    assert [receipt["offset"] for receipt in answers(emit)] == [1, 2, 3]


@pytest.fixture
def run(shell, dev):
    """A whole run of the user `demo`, as tail shows it."""
    types = [
        ("agent_started", {"message": "On it", "agent_type": "research"}),
        ("agent_thinking", {"reasoning": "Größe first ✓", "step_number": 1, "total_steps": 2}),
        ("tool_executing", {"tool_call_id": "c", "tool_name": "search", "parameters": {"n": 9007199254740993}}),
        ("tool_completed", {"tool_call_id": "c", "tool_name": "search", "status": "succeeded", "result": {"x": 1.5}}),
        ("agent_completed", {"message": "Done", "execution_time_ms": 1500}),
    ]
    lines = "".join(line(n, type=kind, agent_name="researcher", payload=payload) for n, (kind, payload) in enumerate(types))
    shell.run("emitter", "emit", "-", stdin=lines)
    return read_back(shell, "demo", 5)


TAIL = "{emitter} tail --json --user demo --from oldest --count 5"


def test_what_tail_prints_is_emitted_to_another(shell, run):
    pipe = f"{TAIL} | {{emitter}} emit - --json --user copy --run r2 --fresh-ids"
    copied = shell.run("sh", "-c", pipe.format(emitter=shell.emitter))
    receipts = answers(copied)
    assert [receipt["run_sequence"] for receipt in receipts] == [1, 2, 3, 4, 5]
    assert not any(receipt["duplicate"] for receipt in receipts), receipts
    ids = {frame["event_id"] for frame in run}
    assert not ids & {receipt["event_id"] for receipt in receipts}, "the ids are the old ones"
    copies = read_back(shell, "copy", 5)
    assert [(frame["type"], frame["payload"]) for frame in copies] == [
        (frame["type"], frame["payload"]) for frame in run
    ]
    assert {(frame["user_id"], frame["run_id"]) for frame in copies} == {("copy", "r2")}


# JSON as agents write it: on several lines, with numbers that no double holds, and cut within an emoji.
AWKWARD = '{\n  "id": 12345678901234567890,\n  "far": 1e999,\r\n  "price": 1.10, "cut": "\\ud83d"\n}'
STORED = '{"id":12345678901234567890,"far":1e999,"price":1.10,"cut":"\ufffd"}'


def test_what_was_stored_goes_through_the_pipe_exactly(shell, dev):
    def emit(kind, data, *flags):
        run = ["emitter", "emit", "--user", "demo", "--run", "r1", "--agent", "a", "--type", kind, *flags]
        return shell.run(*run, "--data", data)

    emit("agent_started", "{}")
    emit("tool_executing", f'{{"tool_name": "t", "tool_call_id": "c", "parameters": {AWKWARD}}}')
    emit("tool_completed", f'{{"tool_call_id": "c", "status": "denied", "result": {AWKWARD}}}')
    emit("cart.updated", '{"big": 9007199254740994, "far": 1e300, "third": 0.3333333333333333}')
    emit("agent_completed", f'{{"result": {AWKWARD}}}')
    shell.run("sh", "-c", f"{TAIL} | {{emitter}} emit - --user copy --run r2 --fresh-ids".format(emitter=shell.emitter))

    def payloads(user):
        tail = shell.run("emitter", "tail", "--json", "--user", user, "--from", "oldest", "--count", "5")
        events = [text for text in tail.out if '"type":"connection_' not in text]
        assert len(events) == 5, tail
        return [text[text.index('"payload":') :] for text in events]

    printed = payloads("demo")
    assert payloads("copy") == printed
    assert [STORED in text for text in printed] == [False, True, True, False, True], printed
    assert '"big":9007199254740994' in printed[3] and '"far":1e+300' in printed[3], printed

    shown = shell.run("emitter", "tail", "--user", "demo", "--from", "oldest", "--count", "5")
    assert [STORED in text for text in shown.out] == [False, True, True, False, False], shown
    assert "denied" in shown.out[2], shown


def test_what_tail_prints_is_known_when_it_comes_back(shell, run):
    again = shell.run("sh", "-c", f"{TAIL} | {{emitter}} emit - --json".format(emitter=shell.emitter))
    receipts = answers(again)
    assert all(receipt["duplicate"] for receipt in receipts), receipts
    assert [(receipt["event_id"], receipt["offset"]) for receipt in receipts] == [
        (frame["event_id"], frame["offset"]) for frame in run
    ]


def test_a_retry_is_a_duplicate(shell, dev):
    emit = ["emitter", "emit", "--user", "demo", "--run", "r1", "--type", "agent_started", "--agent", "a", "--event-id", "mine"]
    first = shell.run(*emit, "--message", "On it")
    retry = shell.run(*emit, "--message", "On it")
    assert retry.out == [f"{first.out[0]}  duplicate"]
    (reused,) = shell.run(*emit, "--message", "Something else", exits=1).out
    assert reused.startswith("refused  EVENT_ID_REUSED: "), reused
    (retry,) = answers(shell.run(*emit, "--message", "On it", "--json"))
    assert retry["duplicate"] is True


def test_a_refusal_is_told_and_exits_1(shell, dev):
    (refused,) = shell.run("emitter", "emit", "--run", "r1", "--type", "agent_started", exits=1).out
    assert refused.startswith("refused  INVALID_EVENT: ") and "user_id" in refused, refused

    lines = start(1) + "not JSON\n" + line(2, user_id="") + line(3)
    emit = shell.run("emitter", "emit", "-", "--json", stdin=lines, exits=1)
    assert [text for text in emit.err if text.startswith("line 2: ")] == emit.err != [], emit
    told = [json.loads(text) for text in emit.out]
    assert [list(answer) for answer in told] == [["receipt"], ["refusal"], ["receipt"]], emit
    assert told[1]["refusal"]["reason"] == "INVALID_EVENT", emit
    assert [frame["event_id"] for frame in read_back(shell, "demo", 2)] == ["e1", "e3"]


@pytest.mark.parametrize(
    "command",
    [
        "",
        "nothing",
        "emit",
        "emit --user demo --type agent_started --data [1]",
        "emit --user demo --type agent_started --data {",
        "emit --user demo --type tool_completed --message hm",
        "emit --user demo --type connection_gap",
        "emit - --type agent_started",
        "emit - --batch 0",
        "emit --type agent_started --grpc ftp://127.0.0.1:1 --token x",
        "tail",
        "tail --user demo --from oldest --after 00000000000000ab-1",
        "tail --user demo --after here",
        "usage --by week",
        "usage --first-day yesterday",
        "token --sub demo",
        "token --sub demo --scope all",
        "token --sub demo --scope emit --issuer alone",
        "serve --no-such-flag",
    ],
)
def test_wrong_usage_exits_2(shell, dev, command):
    ran = shell.run("emitter", *command.split(), exits=2)
    assert ran.err and not ran.out, ran


def test_without_a_service_it_says_how_to_get_one(shell):
    for command in ["emit --user demo --type agent_started", "tail --user demo", "token --sub demo --scope emit"]:
        ran = shell.run("emitter", *command.split(), exits=1)
        assert "emitter dev" in "\n".join(ran.err), ran


# tail


def test_tail_comes_back_by_itself(shell):
    ports = lasting_ports()
    first = shell.dev(ports=ports)
    tail = shell.tail("--user", "demo", "--from", "oldest")

    def shown():
        return [frame["event_id"] for frame in tail.frames]

    shell.run("emitter", "emit", "-", stdin=start(1) + line(2) + line(3))
    tail.until("what was before", lambda: len(tail.frames) == 3)
    first.program.kill()
    gone = f"disconnected from ws://{first.http}/v1/stream: "
    tail.until("news of the address that is gone", lambda: any(text.startswith(gone) for text in tail.err))

    second = shell.dev(ports=ports)
    assert (second.grpc, second.http) == (first.grpc, first.http)
    # The new epoch knows no ids, so it stores again what was stored before. Whoever saw that does not see it again.
    emit = shell.run("emitter", "emit", "-", "--json", stdin=start(1) + line(2) + line(3) + line(4) + line(5))
    assert not any(receipt["duplicate"] for receipt in answers(emit)), emit
    tail.until("what came after", lambda: "e5" in shown())
    assert shown() == ["e1", "e2", "e3", "e4", "e5"], tail

    frames = [checked(json.loads(text)) for text in tail.out]
    (gap,) = [frame for frame in frames if frame["type"] == "connection_gap"]
    assert gap["reason"] == "epoch_changed", tail
    epochs = [frame["epoch"] for frame in tail.frames]
    assert epochs[0] == epochs[2] != epochs[3] == epochs[4], tail
    assert gap["after"] == f"{epochs[0]}-3" and gap["next"] == f"{epochs[3]}-0", gap
    assert frames.index(tail.frames[2]) < frames.index(gap) < frames.index(tail.frames[3]), tail


def test_tail_goes_on_after_a_position(shell, run):
    after = f"{run[1]['epoch']}-{run[1]['offset']}"
    tail = shell.run("emitter", "tail", "--json", "--user", "demo", "--after", after, "--count", "3")
    assert tail.frames == run[2:], tail


def test_tail_shows_only_what_is_asked_for(shell, run):
    flags = ["--from", "oldest", "--types", "agent_started,agent_completed", "--run", "r1", "--count", "2"]
    tail = shell.run("emitter", "tail", "--json", "--user", "demo", *flags)
    assert tail.frames == [run[0], run[4]], tail


def test_tail_ends_where_it_is_refused(shell, dev):
    emitting = shell.run("emitter", "token", "--sub", "demo", "--scope", "emit").out[0]
    tail = shell.run("emitter", "tail", "--token", emitting, exits=1)
    assert "403" in "\n".join(tail.err) and "SCOPE_MISSING" in "\n".join(tail.err), tail


# usage


@pytest.fixture
def consumed(shell, dev):
    """Three events with usage, one of them sent twice."""
    usage = {"provider": "acme", "model": "large", "input_tokens": 1200, "output_tokens": 300, "cached_input_tokens": 200}
    stated = {**usage, "model": "small", "cost_nano_usd": 2500000}
    lines = line(0, type="agent_started", agent_name="a", thread_id="t1", payload={}) + line(1, usage=usage)
    shell.run("emitter", "emit", "-", stdin=lines + line(2, usage=stated) + line(3, usage=stated))
    (again,) = answers(shell.run("emitter", "emit", "-", "--json", stdin=line(3, usage=stated)))
    assert again["duplicate"] is True


def test_usage_is_added_up(shell, consumed):
    (text,) = shell.run("emitter", "usage", "--json", "--by", "user,model").out
    usage = json.loads(text)
    assert usage["rows_left_out"] == 0
    assert [(row["user_id"], row["model"], row["totals"]) for row in usage["rows"]] == [
        (
            "demo",
            model,
            {
                "events": events,
                "input_tokens": 1200 * events,
                "output_tokens": 300 * events,
                "cached_input_tokens": 200 * events,
                "cache_write_input_tokens": 0,
                "cache_write_1h_input_tokens": 0,
                "reasoning_tokens": 0,
                "cost_nano_usd": cost,
                "unpriced_events": unpriced,
            },
        )
        for model, events, cost, unpriced in [("large", 1, 0, 1), ("small", 2, 5000000, 0)]
    ]
    assert (usage["total"]["events"], usage["total"]["cost_nano_usd"]) == (3, 5000000), usage
    for flags, events in [("--user demo", 3), ("--user other", 0), ("--model small", 2), ("--run r1", 3), ("--thread t1", 3)]:
        (text,) = shell.run("emitter", "usage", "--json", *flags.split()).out
        assert json.loads(text)["total"]["events"] == events, (flags, text)


def test_usage_is_drawn(shell, consumed):
    drawn = shell.run("emitter", "usage", "--by", "model", COLUMNS="70").out
    assert drawn == [
        "MODEL  EVENTS  INPUT  OUTPUT       COST",
        "large       1  1,200     300          ?  ██████████████",
        "small       2  2,400     600  $0.005000  ████████████████████████████",
        "total       3  3,600     900  $0.005000+",
        "",
        "? and +: the cost lacks 1 event of models without a price",
    ], "\n".join(drawn)
    drawn = shell.run("emitter", "usage").out
    days = [row for row in drawn if re.match(r"20\d\d-\d\d-\d\d .* █+$", row)]
    # Where midnight was between, there are two and their sum.
    (whole,) = days if len(days) == 1 else [row for row in drawn if row.startswith("total ")]
    assert re.match(r"\S+ +3 +3,600 +900 +\$0.005000\+", whole), drawn
    assert shell.run("emitter", "usage", "--user", "other").err == ["no usage"]


def test_usage_of_runs_has_no_days(shell, dev):
    ran = shell.run("emitter", "usage", "--by", "run,day", exits=1)
    assert ran.err[0].startswith("error: INVALID_REQUEST: ") and "group_by" in ran.err[0], ran


# token


def claims(token, secret):
    """What a token says, once its signature is found to be right."""
    head, body, signature = token.split(".")
    assert signature == base64url(hmac.digest(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256))
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, body))
    assert (header["alg"], header["typ"]) == ("HS256", "JWT"), header
    return claims


def assert_good_for(claims, seconds, before):
    exp = claims.pop("exp")
    assert before + seconds - 1 <= exp <= time.time() + seconds + 1, exp


def test_a_token_is_as_documented(shell, dev, tmp_path):
    secret = json.loads((tmp_path / "run/emitter/session.json").read_text())["secret"]
    before = time.time()
    (token,) = shell.run("emitter", "token", "--sub", "demo", "--scope", "subscribe").out
    said = claims(token, secret)
    assert_good_for(said, 3600, before)
    assert said == {
        "sub": "demo",
        "tenant": "default",
        "scope": "subscribe",
        "aud": "emitter",
        "iss": "emitter-dev",
    }


def test_a_token_for_another_service(shell, tmp_path):
    secret = shell.keeps("a secret of which nobody may read " + "x" * 20)
    (tmp_path / "secret").write_text(secret + "\n")
    before = time.time()
    flags = "--issuer platform --secret-file secret --sub svc --scope emit --scope operate"
    more = "--users alice,bob --tenant t1 --ttl 15m"
    (token,) = shell.run("emitter", "token", *flags.split(), *more.split()).out
    said = claims(token, secret)
    assert_good_for(said, 900, before)
    assert sorted(said.pop("scope").split()) == ["emit", "operate"]
    assert said == {"sub": "svc", "tenant": "t1", "aud": "emitter", "iss": "platform", "users": ["alice", "bob"]}


# help


def test_every_command_has_help(shell):
    overview = "\n".join(shell.run("emitter", "--help").out)
    listed = re.findall(r"^  ([a-z-]+)  +\S", overview.split("Commands:")[1].split("Options:")[0], re.MULTILINE)
    assert sorted(listed) == sorted([*COMMANDS, "help"]), overview
    for command in COMMANDS:
        helped = "\n".join(shell.run("emitter", command, "--help").out)
        assert "Examples:" in helped and f"\n  emitter {command}" in helped, helped
        assert shell.run("emitter", "help", command).out == helped.split("\n")
        assert "Usage: emitter" in "\n".join(shell.run("emitter", command, "-h").out)


@pytest.mark.parametrize("command", ["emit", "token", "check-config"])
def test_the_examples_of_the_help_work(shell, run, config, tmp_path, command):
    helped = shell.run("emitter", command, "--help").out
    # An example that is wider than a terminal goes on in another line, as a shell has it.
    examples = re.findall(r"^  (emitter .*(?:(?<=\\)\n.*)*)$", "\n".join(helped), re.MULTILINE)
    assert len(examples) >= 2, helped
    (tmp_path / "events.jsonl").write_text(start(101, run_id="x2") + line(102, run_id="x2"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/emitter").symlink_to(shell.emitter)
    for example in examples:
        # The examples of `emit` tell one run, of the name that the fixture `run` has used up.
        ran = shell.paste(f"PATH={tmp_path}/bin:$PATH\n{example.replace('--run r1', '--run x1')}\n")
        assert ran.out or "> " in example, ran
