"""What a program of any language must have been told by the service.

Each client program plays the same scene and prints a JSON line for each step: it emits the run `one` event by event and
`two` as a batch, emits both again, is refused twice, and reads the eleven events that were stored, from the beginning
and then after the fourth."""

import json
import re
import subprocess

import grpc

from people import Person
from projects import COMPILE_SECONDS, environment, plain

# Of one run: the types and what each event says, by protobuf's names.
EVENTS = [
    ("agent_started", {"message": "On it"}),
    ("agent_thinking", {"reasoning": "Größe ✓", "step_number": 1}),
    # An integer that no double holds.
    ("tool_executing", {"tool_call_id": "c1", "tool_name": "search", "parameters_json": '{"id":9007199254740993}'}),
    ("tool_completed", {"tool_call_id": "c1", "status": "TOOL_STATUS_SUCCEEDED", "result_json": '["a","b"]'}),
    ("agent_completed", {"message": "Done"}),
]


class Told:
    """What one program printed."""

    def __init__(self, server, directory, *command, **variables):
        self.person = Person(server)
        self.user_id = self.person.user_id
        tokens = {"EMIT_TOKEN": self.person.emit_token, "READ_TOKEN": self.person.read_token}
        addresses = {"GRPC": server.grpc, "HTTP": server.http, "USER_ID": self.user_id}
        program = subprocess.run(
            command,
            cwd=directory,
            env={**environment(directory), **addresses, **tokens, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
        )
        assert program.returncode == 0, f"{command} ended with {program.returncode}:\n{program.stdout}{program.stderr}"
        lines = [line for line in plain(program.stdout).splitlines() if line]
        assert all(line.startswith("{") for line in lines), f"{command} printed more than steps:\n{program.stdout}"
        self.steps = {line["step"]: line["told"] for line in map(json.loads, lines)}

    def __getitem__(self, step):
        assert step in self.steps, f"it told only of {list(self.steps)}"
        return self.steps[step]

    def numbers(self, step):
        """The receipts or events of a step: id, epoch, offset, number in the run."""
        return [
            (
                item.get("event", item)["event_id"],
                item["position"]["epoch"],
                int(item["position"]["offset"]),
                int(item["run_sequence"]),
            )
            for item in self[step]
        ]

    def event_ids(self, run, count=5):
        return [f"{self.user_id}-{run}-{nth}" for nth in range(1, count + 1)]

    @property
    def stored(self):
        """The numbers of everything that was stored, by the receipts; of the third run's start there is none."""
        return self.numbers("emitted") + self.numbers("batched")


class Clients:
    """The tests of such a program. `told` is a fixture of each language's own."""

    def test_every_event_gets_its_receipt(self, told):
        receipts = told.stored
        assert [receipt[0] for receipt in receipts] == told.event_ids("one") + told.event_ids("two")
        assert [receipt[3] for receipt in receipts] == [1, 2, 3, 4, 5] * 2
        epochs = {receipt[1] for receipt in receipts}
        assert len(epochs) == 1 and re.fullmatch("[0-9a-f]{16}", *epochs), receipts
        offsets = [receipt[2] for receipt in receipts]
        assert offsets == sorted(set(offsets)) and offsets[0] > 0, offsets
        assert not any(receipt.get("duplicate") for receipt in told["emitted"] + told["batched"])
        assert all(receipt["recorded_at"] for receipt in told["emitted"] + told["batched"])

    def test_a_retry_gets_the_first_receipts(self, told):
        first = [{**receipt, "duplicate": True} for receipt in told["emitted"] + told["batched"]]
        assert told["retried"] == first

    def test_an_invalid_event_is_refused_by_field(self, told):
        refused = told["invalid"]
        assert refused["code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0], refused
        assert (refused["domain"], refused["reason"]) == ("emitter", "INVALID_EVENT"), refused
        assert refused["fields"] == ["event.user_id"], refused

    def test_a_competing_source_is_told_the_owner(self, told):
        refused = told["competing"]
        assert refused["code"] == grpc.StatusCode.FAILED_PRECONDITION.value[0], refused
        assert (refused["domain"], refused["reason"]) == ("emitter", "COMPETING_SOURCE"), refused
        owner, rival = (refused["metadata"][f"{who}_producer_id"] for who in ("owner", "refused"))
        assert (owner, rival, refused["metadata"]["owner_term"]) == ("client", "rival", "1"), refused

    def test_the_runs_are_read_back_in_order(self, told):
        assert told.numbers("read")[:10] == told.stored
        assert [number[0] for number in told.numbers("read")[10:]] == told.event_ids("three", 1)
        # The oneofs' own names, which some libraries add, are not the service's business.
        for (kind, says), read in zip([*EVENTS, *EVENTS, EVENTS[0]], told["read"], strict=True):
            event = read["event"]
            assert says.items() <= event[kind].items(), event
            assert not event.keys() & ({other for other, _ in EVENTS} - {kind}), event
            assert event["run_id"] == event["event_id"].rpartition("-")[0], event
            assert (event["user_id"], event["agent_name"]) == (told.user_id, "writer"), event
            assert not event.get("source"), "the source is not for readers"

    def test_a_reader_resumes_after_its_position(self, told):
        assert told["resumed"] == told["read"][4:]

    def test_a_deadline_ends_a_call(self, told):
        assert told["deadline"] == {"code": grpc.StatusCode.DEADLINE_EXCEEDED.value[0]}
