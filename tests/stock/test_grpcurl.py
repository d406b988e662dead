"""grpcurl, which knows nothing but what server reflection tells it."""

import json
import subprocess
import threading

import pytest

# How long anything may take that ought to be immediate.
SECONDS = 60


class Grpcurl:
    def __init__(self, server):
        self.server = server

    def command(self, *arguments, token=None, data=None, max_time=SECONDS):
        command = ["grpcurl", "-plaintext", "-max-time", str(max_time)]
        if token:
            command += ["-H", f"authorization: Bearer {token}"]
        if data is not None:
            command += ["-d", json.dumps(data)]
        return [*command, self.server.grpc, *arguments]

    def run(self, *arguments, **options):
        return subprocess.run(
            self.command(*arguments, **options), capture_output=True, text=True, timeout=2 * SECONDS
        )

    def text(self, *arguments):
        ran = self.run(*arguments)
        assert ran.returncode == 0, ran
        return ran.stdout

    def call(self, method, data, token=None):
        ran = self.run(method, token=token, data=data)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def subscribe(self, token, data, events):
        """What Subscribe streams, up to so many events. grpcurl itself gives up after its -max-time."""
        command = self.command("emitter.v1.EventSubscriber/Subscribe", token=token, data=data)
        decoder = json.JSONDecoder()
        seen, text = [], ""
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            guard = threading.Timer(2 * SECONDS, process.kill)
            guard.start()
            try:
                for line in process.stdout:
                    text += line
                    try:
                        seen.append(decoder.decode(text))
                    except json.JSONDecodeError:
                        continue
                    text = ""
                    if sum("event" in response for response in seen) == events:
                        return seen
                raise AssertionError(f"wanted {events} events, saw {seen}: {process.stderr.read()}")
            finally:
                guard.cancel()
                process.kill()


@pytest.fixture
def grpcurl(server):
    return Grpcurl(server)


def emit_one_by_one(grpcurl, person, events):
    return [
        grpcurl.call("emitter.v1.EventEmitter/Emit", {"event": event}, person.emit_token)["receipt"] for event in events
    ]


def emit_batch(grpcurl, person, events):
    response = grpcurl.call("emitter.v1.EventEmitter/EmitBatch", {"events": events}, person.emit_token)
    assert "refusedCount" not in response, response
    return [result["receipt"] for result in response["results"]]


@pytest.mark.parametrize("emit", [emit_one_by_one, emit_batch])
def test_a_run_is_read_back(grpcurl, person, emit):
    run = person.run()
    receipts = emit(grpcurl, person, run.events)
    assert [receipt["eventId"] for receipt in receipts] == run.event_ids
    assert [receipt["runSequence"] for receipt in receipts] == ["1", "2", "3", "4", "5"]
    assert not any("duplicate" in receipt for receipt in receipts)

    seen = grpcurl.subscribe(person.read_token, {"from": "START_FROM_OLDEST"}, 5)
    assert list(seen[0]) == ["established"]
    assert seen[0]["established"]["userId"] == person.user_id
    events = [response["event"] for response in seen if "event" in response]
    assert [event["event"]["eventId"] for event in events] == run.event_ids
    assert [event["position"] for event in events] == [receipt["position"] for receipt in receipts]
    assert [event["runSequence"] for event in events] == [receipt["runSequence"] for receipt in receipts]
    assert len({event["position"]["epoch"] for event in events}) == 1
    offsets = [int(event["position"]["offset"]) for event in events]
    assert offsets == sorted(set(offsets)), offsets
    for event, sent, arm in zip(events, run.events, run.TYPES, strict=True):
        arm_in_json = arm.split("_")[0] + arm.split("_")[1].capitalize()
        added = {"callSequence": str(run.CALL_SEQUENCE)} if arm.startswith("tool_") else {}
        assert camel_case(sent[arm]) | added == event["event"][arm_in_json]


def test_an_operator_sees_a_whole_run(grpcurl, server, person):
    run = person.run()
    receipts = emit_batch(grpcurl, person, run.events)
    token = server.token("ops", "operate")
    (listed,) = grpcurl.call("emitter.v1.EmitterOperator/ListRuns", {"user_id": person.user_id}, token)["runs"]
    assert (listed["runId"], listed["threadId"], listed["agentName"]) == (run.run_id, run.thread_id, run.agent_name)
    assert (listed["state"], listed["runSequence"]) == ("RUN_STATE_COMPLETED", "5")
    shown = grpcurl.call("emitter.v1.EmitterOperator/GetRun", {"run_id": run.run_id}, token)
    assert shown["run"] == listed
    timeline = shown["timeline"]
    assert [item["type"] for item in timeline] == run.TYPES
    assert [item["position"] for item in timeline] == [receipt["position"] for receipt in receipts]
    assert [item.get("text", "") for item in timeline] == [
        "Looking into it",
        "Größe first, then price ✓",
        "Searches the catalogue",
        "",
        "Done",
    ]
    assert timeline[1]["stepNumber"] == 1 and timeline[3]["toolName"] == "search" and timeline[3]["duration"]
    assert shown["delivery"]["storedUpTo"] == receipts[-1]["position"]
    ran = grpcurl.run("emitter.v1.EmitterOperator/ListRuns", token=person.emit_token, data={})
    assert ran.returncode != 0 and "SCOPE_MISSING" in ran.stderr, ran
    ran = grpcurl.run("emitter.v1.EmitterOperator/GetRun", token=token, data={"run_id": "no-such-run"})
    assert ran.returncode != 0 and "NOT_FOUND" in ran.stderr, ran


def camel_case(payload):
    """The top names of a payload as protobuf's JSON writes them."""

    def camel(name):
        first, *rest = name.split("_")
        return first + "".join(part.capitalize() for part in rest)

    return {camel(name): value for name, value in payload.items()}


def test_usage_is_added_up(grpcurl, server, person):
    run = person.run()
    usage = {"provider": "acme", "model": "large", "output_tokens": 300, "reasoning_tokens": 100}
    for event, tokens in zip(run.events[1:], [1, 20, 300]):
        event["usage"] = {**usage, "input_tokens": tokens}
    emit_batch(grpcurl, person, run.events)
    emit_batch(grpcurl, person, run.events)

    operator = server.token("ops", "operate")
    question = {"user_id": person.user_id, "group_by": ["USAGE_GROUP_MODEL", "USAGE_GROUP_THREAD"]}
    totals = {
        "events": "3",
        "inputTokens": "321",
        "outputTokens": "900",
        "reasoningTokens": "300",
        "unpricedEvents": "3",
    }
    assert grpcurl.call("emitter.v1.EmitterOperator/GetUsage", question, operator) == {
        "rows": [{"model": "large", "threadId": run.thread_id, "totals": totals}],
        "total": totals,
    }
    for token, told in [(operator, "INVALID_REQUEST"), (person.read_token, "SCOPE_MISSING")]:
        question = {"run_id": run.run_id, "first_day": "2026-11-22"}
        ran = grpcurl.run("emitter.v1.EmitterOperator/GetUsage", token=token, data=question)
        assert ran.returncode != 0 and told in ran.stderr, ran


def test_it_lists_the_services(grpcurl):
    assert set(grpcurl.text("list").split()) >= {
        "emitter.v1.EventEmitter",
        "emitter.v1.EventSubscriber",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert set(grpcurl.text("list", "emitter.v1.EventEmitter").split()) == {
        "emitter.v1.EventEmitter.Emit",
        "emitter.v1.EventEmitter.EmitBatch",
    }


def test_it_describes_the_contract(grpcurl):
    assert "rpc Emit ( .emitter.v1.EmitRequest ) returns ( .emitter.v1.EmitResponse );" in grpcurl.text(
        "describe", "emitter.v1.EventEmitter"
    )
    assert "returns ( stream .emitter.v1.SubscribeResponse );" in grpcurl.text("describe", "emitter.v1.EventSubscriber")
    assert ".emitter.v1.AgentStarted agent_started = 20;" in grpcurl.text("describe", "emitter.v1.Event")
    assert "string reason = 1;" in grpcurl.text("describe", "google.rpc.ErrorInfo")


@pytest.mark.parametrize("service", ["emitter.v1.EventEmitter", "emitter.v1.EventSubscriber"])
def test_each_service_is_healthy(grpcurl, service):
    assert grpcurl.call("grpc.health.v1.Health/Check", {"service": service}) == {"status": "SERVING"}


def test_an_error_is_told_in_full(grpcurl, person):
    event = person.run().events[0]
    del event["user_id"]
    ran = grpcurl.run("emitter.v1.EventEmitter/Emit", token=person.emit_token, data={"event": event})
    assert ran.returncode != 0
    for told in ("InvalidArgument", "INVALID_EVENT", "event.user_id"):
        assert told in ran.stderr, ran.stderr
