"""The commands that show runs, as an operator uses them."""

import json
import re

import pytest


def emit(shell, run, kind, *flags, user="demo"):
    shell.run("emitter", "emit", "--user", user, "--run", run, "--type", kind, *flags)


@pytest.fixture
def runs(shell, dev):
    """Three runs: one ended well, one waits, one failed."""
    start = ["--agent", "researcher", "--thread", "t1", "--message", "On it"]
    emit(shell, "r1", "agent_started", *start)
    emit(shell, "r1", "tool_executing", "--tool", "search", "--call", "c1", "--message", "look")
    emit(shell, "r1", "tool_completed", "--call", "c1")
    emit(shell, "r1", "agent_completed", "--message", "Done")
    emit(shell, "r2", "agent_started", "--agent", "writer")
    emit(shell, "r2", "agent_waiting", "--message", "Go on?")
    emit(shell, "r3", "agent_started", "--agent", "writer", user="other")
    emit(shell, "r3", "agent_failed", "--message", "\x1b[2Jno", user="other")


def listed(shell, *flags):
    return [json.loads(line) for line in shell.run("emitter", "runs", "--json", *flags).out]


def test_runs_are_listed(shell, runs):
    table = shell.run("emitter", "runs").out
    rows = [re.split("  +", row) for row in table]
    assert rows[0] == ["STARTED", "STATE", "USER", "AGENT", "RUN", "EVENTS", "LAST EVENT"], table
    assert [row[1:6] for row in rows[1:]] == [
        ["failed", "other", "writer", "r3", "2"],
        ["waiting", "demo", "writer", "r2", "2"],
        ["completed", "demo", "researcher", "r1", "4"],
    ], table
    assert all(re.fullmatch(r"\d+[sm] ago", row[6]) for row in rows[1:]), table


@pytest.mark.parametrize(
    ("flags", "want"),
    [
        ([], ["r3", "r2", "r1"]),
        (["--user", "demo"], ["r2", "r1"]),
        (["--agent", "writer"], ["r3", "r2"]),
        (["--thread", "t1"], ["r1"]),
        (["--state", "failed,waiting"], ["r3", "r2"]),
        (["--since", "1h", "--limit", "2"], ["r3", "r2"]),
        (["--state", "cancelled"], []),
    ],
)
def test_the_list_is_filtered(shell, runs, flags, want):
    found = listed(shell, *flags)
    assert [run["run_id"] for run in found] == want
    assert all(run["tenant_id"] == "default" and run["started_at"] for run in found), found


def test_a_run_is_drawn(shell, runs):
    drawn = shell.run("emitter", "runs", "show", "r1").out
    assert drawn[0] == "run r1  completed", drawn
    assert drawn[1] == "  tenant default · user demo · thread t1 · agent researcher", drawn
    timeline = [line for line in drawn if re.match(r" +\+", line)]
    patterns = [
        r" +\+0\.000s      agent_started    On it  ◂ emitter-cli term 0",
        r" +\+\S+  ┌   tool_executing   search  look",
        r" +\+\S+  └   tool_completed   search  (\d+ms|\d+\.\d{3}s)",
        r" +\+\S+      agent_completed  Done",
    ]
    assert len(timeline) == len(patterns), drawn
    for line, pattern in zip(timeline, patterns):
        assert re.fullmatch(pattern, line), line
    (stored,) = [line for line in drawn if "stored up to" in line]
    assert re.fullmatch(r"  stored up to [0-9a-f]{16}-4", stored), drawn


def test_nothing_from_outside_acts_on_the_terminal(shell, runs):
    drawn = shell.run("emitter", "runs", "show", "r3").out
    assert "\x1b" not in "\n".join(drawn), drawn
    assert any(line.endswith("agent_failed      [2Jno") for line in drawn), drawn


def test_a_run_is_shown_to_a_script(shell, runs):
    (text,) = shell.run("emitter", "runs", "show", "r1", "--json").out
    shown = json.loads(text)
    assert (shown["run"]["state"], shown["run"]["run_sequence"]) == ("completed", 4), shown
    assert [item["type"] for item in shown["timeline"]] == [
        "agent_started",
        "tool_executing",
        "tool_completed",
        "agent_completed",
    ]
    assert isinstance(shown["timeline"][2]["duration_ms"], int), shown
    assert shown["delivery"]["stored_up_to"] == shown["timeline"][3]["position"], shown
    assert shown["run"] == listed(shell, "--thread", "t1")[0]


def test_what_cannot_be_shown_is_told(shell, dev):
    nothing = shell.run("emitter", "runs")
    assert nothing.out == [] and nothing.err == ["no runs"], nothing
    unknown = shell.run("emitter", "runs", "show", "r9", exits=1)
    assert unknown.err == ["error: NOT_FOUND: no such run is known: runs are known while they are open, and as long as events are retained"], unknown
    foreign = shell.run("emitter", "runs", "--tenant", "acme", exits=1)
    assert foreign.err == ["error: TENANT_FORBIDDEN: the credential is of another tenant"], foreign
    shell.run("emitter", "runs", "--state", "odd", exits=2)
    shell.run("emitter", "runs", "--limit", "0", exits=2)
    emitting = shell.run("emitter", "token", "--sub", "a", "--scope", "emit").out[0]
    refused = shell.run("emitter", "runs", exits=1, EMITTER_TOKEN=emitting)
    assert refused.err == ["error: SCOPE_MISSING: the credential lacks the scope `operate`"], refused
    every = shell.run("emitter", "token", "--sub", "a", "--scope", "operate", "--tenant", "*").out[0]
    shell.run("emitter", "runs", "--tenant", "acme", EMITTER_TOKEN=every)


def test_an_operator_ends_a_run(shell, runs):
    ended = shell.run("emitter", "runs", "cancel", "r2", "--reason", "nobody is there").out
    assert ended == ["run r2 is cancelled"], ended
    shown = json.loads(shell.run("emitter", "runs", "show", "r2", "--json").out[0])
    assert (shown["run"]["state"], shown["timeline"][-1]["text"]) == ("cancelled", "nobody is there"), shown
    again = shell.run("emitter", "runs", "cancel", "r2", exits=1)
    assert again.err == ["error: the run had ended before: it is cancelled"], again


def test_a_run_is_shown_with_its_sub_agents(shell, runs):
    emit(shell, "r4", "agent_started", "--agent", "lead")
    below = {"type": "agent_started", "user_id": "demo", "run_id": "r5", "parent_run_id": "r4", "agent_name": "aide"}
    shell.run("emitter", "emit", "-", stdin=json.dumps({**below, "payload": {}}) + "\n")
    emit(shell, "r5", "agent_completed", "--message", "Done")
    drawn = shell.run("emitter", "runs", "show", "r4").out
    (line,) = drawn[drawn.index("sub-agents") + 1 :][:1]
    assert re.fullmatch(r"  r5  aide  completed  \d+ms|  r5  aide  completed  \d+\.\d{3}s", line), drawn
    shown = json.loads(shell.run("emitter", "runs", "show", "r4", "--json").out[0])
    assert [run["run_id"] for run in shown["sub_agents"]] == ["r5"], shown


def test_competing_sources_are_listed(shell, runs):
    assert shell.run("emitter", "sources").err == ["no competing sources"]
    event = {"type": "agent_thinking", "user_id": "demo", "run_id": "r2", "payload": {"reasoning": "Hm"}}
    rival = shell.run("emitter", "token", "--sub", "rival", "--scope", "emit").out[0]
    shell.run("emitter", "emit", "-", stdin=json.dumps(event) + "\n", exits=1, EMITTER_TOKEN=rival)
    heading, row = shell.run("emitter", "sources").out
    assert re.split("  +", heading) == ["REFUSED", "OWNER", "RUN", "USER", "REASON", "EVENTS", "LAST"], heading
    assert re.split("  +", row)[:6] == ["rival term 0", "emitter-cli term 0", "r2", "demo", "COMPETING_SOURCE", "1"], row
    (line,) = shell.run("emitter", "sources", "--json").out
    assert json.loads(line)["refused"] == {"producer_id": "rival", "term": 0}, line


def test_connections_are_listed_and_ended(shell, dev):
    assert shell.run("emitter", "connections").err == ["no connections"]
    tail = shell.tail("--user", "demo", "--client-id", "screen")
    tail.until("the stream", lambda: any("connection_established" in line for line in tail.out))
    heading, row = shell.run("emitter", "connections", "--user", "demo").out
    assert re.split("  +", heading) == ["CONNECTION", "USER", "CLIENT", "OVER", "SINCE", "POSITION"], heading
    connection, *cells = re.split("  +", row)
    assert cells[:3] == ["demo", "screen", "WebSocket"], row
    assert shell.run("emitter", "disconnect", connection).out == ["1 disconnected"]
    tail.until("the end of the connection", lambda: any("DISCONNECTED" in line for line in tail.out + tail.err))
    shell.run("emitter", "disconnect", "--user", "nobody", exits=1)
    shell.run("emitter", "disconnect", exits=2)
