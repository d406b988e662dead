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
