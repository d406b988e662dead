"""That frames which are not as proto/asyncapi.json says are noticed. That they are is checked of every frame that these
tests get."""

import copy

import pytest

from contract import MESSAGES, checked

EXAMPLES = {example["name"]: example["payload"] for message in MESSAGES.values() for example in message["examples"]}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid(name):
    checked(EXAMPLES[name])


def without(field):
    return lambda frame: frame.pop(field)


def also(field, value):
    return lambda frame: frame.update({field: value})


def in_payload(field, value):
    return lambda frame: frame["payload"].update({field: value})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("agent_started", without("agent_name")),
        ("agent_started", without("run_sequence")),
        ("agent_started", also("source", {"producer_id": "p"})),
        ("agent_started", also("summary", {"open_tool_calls": []})),
        ("agent_started", also("offset", 2**53)),
        ("agent_started", also("epoch", "0xab")),
        ("agent_started", also("recorded_at", "2026-11-21 10:00:00")),
        ("agent_started", also("custom", True)),
        ("agent_started", in_payload("silence_timeout", "600s")),
        ("tool_completed", in_payload("status", "TOOL_STATUS_FAILED")),
        ("text_delta, joined", without("first_offset")),
        ("text_delta, joined", also("joined", 1)),
        ("state_delta", lambda frame: frame["payload"]["operations"][0].pop("value")),
        ("agent_completed", lambda frame: frame["summary"]["usage"].update(total=1)),
        ("agent_completed", lambda frame: frame["summary"]["open_tool_calls"][0].pop("started_at")),
        ("custom", also("type", "message_of_mine")),
        ("custom", also("custom", False)),
        ("connection_established", lambda frame: frame["open_runs"][0].update(state="completed")),
        ("connection_heartbeat", also("position", "4091b7a28218fb4e-04")),
        ("connection_gap, trimmed", also("reason", "lost")),
        ("connection_closing, do not", also("reconnect_after_ms", 1)),
        ("connection_closing, come back", without("reconnect_after_ms")),
        ("connection_error", also("type", "connection_unheard_of")),
    ],
)
def test_a_frame_that_is_otherwise_is_noticed(name, change):
    frame = copy.deepcopy(EXAMPLES[name])
    change(frame)
    with pytest.raises(AssertionError):
        checked(frame)
