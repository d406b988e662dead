"""Python's stock WebSocket client, `websockets`. Events are emitted through grpcio."""

import json
import re
import time
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest
from google.protobuf import json_format
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from contract import checked
from server import base64url

# How long anything may take that ought to be immediate.
SECONDS = 60
JSON = "emitter.v1.json"


class Socket:
    """A connection, and every frame that it has brought so far."""

    def __init__(self, connection):
        self.connection = connection
        self.seen = []

    def next(self):
        """The next frame that tells something: heartbeats and news of the cursor are passed over."""
        until = time.monotonic() + SECONDS
        while True:
            try:
                text = self.connection.recv(timeout=max(0, until - time.monotonic()))
            except Exception as error:
                raise AssertionError(f"no frame: {error!r}; all that was seen: {self.seen}") from error
            assert isinstance(text, str), f"a binary frame: {text!r}"
            frame = checked(json.loads(text))
            self.seen.append(frame)
            if frame["type"] not in ("connection_heartbeat", "connection_caught_up"):
                return frame

    def events(self, count):
        """The next events. Any other frame among them is a failure."""
        events = [self.next() for _ in range(count)]
        assert not any(event["type"].startswith("connection_") for event in events), self.seen
        return events


@pytest.fixture
def open_socket(server):
    @contextmanager
    def open_socket(headers=None, subprotocols=None, **query):
        url = f"ws://{server.http}/v1/stream" + (f"?{urlencode(query)}" if query else "")
        with connect(
            url,
            additional_headers=headers,
            subprotocols=subprotocols,
            proxy=None,
            open_timeout=SECONDS,
            close_timeout=SECONDS,
        ) as connection:
            yield Socket(connection)

    return open_socket


def header(person):
    """The credential as anything but a browser sends it."""
    return {"headers": {"Authorization": f"Bearer {person.read_token}"}}


def subprotocol_pair(person):
    """The credential as a browser sends it."""
    return {"subprotocols": [JSON, token_entry(person.read_token)]}


def token_entry(token):
    return f"base64url.bearer.authorization.emitter.{base64url(token.encode())}"


@pytest.fixture
def emit(stubs, channel):
    """Emits one event per call, or several as one batch."""
    emitter = stubs.EventEmitterStub(channel)

    def emit(person, *events):
        messages = [json_format.ParseDict(event, stubs.Event()) for event in events]
        if len(messages) == 1:
            request = stubs.EmitRequest(event=messages[0])
            return emitter.Emit(request, metadata=person.emitting, timeout=SECONDS).receipt
        request = stubs.EmitBatchRequest(events=messages)
        response = emitter.EmitBatch(request, metadata=person.emitting, timeout=SECONDS)
        assert response.refused_count == 0, response
        return [result.receipt for result in response.results]

    return emit


def assert_established(frame, person):
    assert frame["type"] == "connection_established", frame
    assert frame["user_id"] == person.user_id
    assert frame["connection_id"]
    assert re.fullmatch("[0-9a-f]{16}-[0-9]+", frame["position"]), frame
    assert frame["heartbeat_interval_ms"] > 0


def position(receipt):
    return f"{receipt.position.epoch}-{receipt.position.offset}"


def assert_frames(run, receipts, frames):
    """The frames are the run's events, in the order and under the numbers of the receipts."""
    told = [(frame["event_id"], frame["epoch"], frame["offset"], frame["run_sequence"]) for frame in frames]
    assert told == [
        (receipt.event_id, receipt.position.epoch, receipt.position.offset, receipt.run_sequence)
        for receipt in receipts
    ]
    assert [frame["event_id"] for frame in frames] == run.event_ids
    assert [frame["type"] for frame in frames] == run.TYPES
    assert [frame["payload"] for frame in frames] == run.payloads
    for frame in frames:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", frame["timestamp"]), frame
        assert (frame["user_id"], frame["run_id"]) == (run.user_id, run.run_id)
        assert (frame["thread_id"], frame["agent_name"]) == (run.thread_id, run.agent_name)
        assert not frame.keys() & {"source", "tenant_id", "tracestate"}, frame


@pytest.mark.parametrize("credential", [header, subprotocol_pair])
def test_runs_are_read_live(open_socket, emit, person, other, credential):
    mine, batched, theirs = person.run(), person.run(), other.run()
    with open_socket(**credential(person)) as socket, open_socket(**credential(other)) as their_socket:
        assert_established(socket.next(), person)
        assert_established(their_socket.next(), other)
        # The other user's events come between, so that any that strays is among the frames read below.
        receipts, their_receipts = [], []
        for event, their_event in zip(mine.events, theirs.events):
            their_receipts.append(emit(other, their_event))
            receipts.append(emit(person, event))
        assert_frames(mine, receipts, socket.events(5))
        receipts = emit(person, *batched.events)
        assert_frames(batched, receipts, socket.events(5))
        assert_frames(theirs, their_receipts, their_socket.events(5))


@pytest.mark.parametrize("credential", [header, subprotocol_pair])
def test_a_reader_resumes_in_the_middle(open_socket, emit, person, other, credential):
    runs = [person.run(), person.run()]
    emit(other, *other.run().events)
    receipts = [emit(person, event) for event in runs[0].events] + emit(person, *runs[1].events)
    everything = runs[0].event_ids + runs[1].event_ids

    with open_socket(**credential(person), **{"from": "oldest"}) as socket:
        assert_established(socket.next(), person)
        frames = socket.events(10)
    assert_frames(runs[0], receipts[:5], frames[:5])
    assert_frames(runs[1], receipts[5:], frames[5:])

    last = person.run()
    for read in (1, 5, 7, 10):
        after = f"{frames[read - 1]['epoch']}-{frames[read - 1]['offset']}"
        assert after == position(receipts[read - 1])
        with open_socket(**credential(person), after=after) as socket:
            established = socket.next()
            assert_established(established, person)
            assert established["position"] == after
            assert [event["event_id"] for event in socket.events(10 - read)] == everything[read:]
    # Nothing else follows what was missed: the next frame is the next event.
    with open_socket(**credential(person), after=position(receipts[7])) as socket:
        assert_established(socket.next(), person)
        receipts += [emit(person, event) for event in last.events]
        rest = socket.events(7)
    assert [event["event_id"] for event in rest] == everything[8:] + last.event_ids
    assert_frames(last, receipts[10:], rest[2:])


def test_the_answer_selects_json_and_never_echoes_the_token(open_socket, person):
    with open_socket(**subprotocol_pair(person)) as socket:
        response = socket.connection.response
        assert socket.connection.subprotocol == JSON
        assert response.headers.get_all("Sec-WebSocket-Protocol") == [JSON]
        answer = f"{response.reason_phrase}\n{response.headers}"
        assert person.read_token not in answer
        assert base64url(person.read_token.encode()) not in answer
        assert "base64url.bearer" not in answer
    # The default encoding is served without being asked for.
    with open_socket(**header(person)) as socket:
        assert socket.connection.subprotocol is None
        assert_established(socket.next(), person)


def test_a_wrong_token_is_unauthorized(open_socket, server, person):
    forged = server.forged_token(person.user_id, "subscribe")
    attempts = {
        "none": {},
        "forged, as a header": {"headers": {"Authorization": f"Bearer {forged}"}},
        "forged, as a subprotocol": {"subprotocols": [JSON, token_entry(forged)]},
        "right, but in the URL": {"token": person.read_token, "access_token": person.read_token},
    }
    statuses = {}
    for name, attempt in attempts.items():
        with pytest.raises(InvalidStatus) as refused, open_socket(**attempt):
            pass
        statuses[name] = refused.value.response.status_code
    assert statuses == dict.fromkeys(attempts, 401)


def test_a_tab_goes_on_after_what_it_acknowledged(open_socket, emit, person):
    ended, open_run = person.run(), person.run()
    receipts = [emit(person, event) for event in ended.events + open_run.events[:3]]
    tab = {**header(person), "client_id": "tab-1"}
    with open_socket(**tab, **{"from": "oldest"}) as socket:
        assert_established(socket.next(), person)
        frames = socket.events(8)
        last = frames[3]
        ack = {"type": "ack", "epoch": last["epoch"], "offset": last["offset"]}
        socket.connection.send(json.dumps(ack))
    for _ in range(2):
        with open_socket(**tab, **{"from": "acked"}) as socket:
            established = socket.next()
            assert_established(established, person)
            assert established["position"] == position(receipts[3])
            assert socket.events(4) == frames[4:]
    # A client that never acknowledged anything gets everything.
    with open_socket(**header(person), client_id="tab-2", **{"from": "acked"}) as socket:
        assert_established(socket.next(), person)
        assert socket.events(8) == frames


def test_a_page_begins_with_what_is_open(open_socket, emit, person):
    ended, open_run = person.run(), person.run()
    emit(person, *ended.events)
    receipts = emit(person, *open_run.events[:3])
    with open_socket(**header(person), **{"from": "open"}) as socket:
        established = socket.next()
        assert_established(established, person)
        (run,) = established["open_runs"]
        assert (run["run_id"], run["agent_name"]) == (open_run.run_id, open_run.agent_name)
        assert (run["thread_id"], run["state"]) == (open_run.thread_id, "running")
        (call,) = run["open_tool_calls"]
        assert call["tool_name"] == "search"
        events = socket.events(3)
        assert [event["event_id"] for event in events] == open_run.event_ids[:3]
        assert events[2]["timestamp"] == call["started_at"]
        assert events[2]["offset"] == receipts[2].position.offset
        # It ends: from then on there is nothing to begin with but the head.
        emit(person, *open_run.events[3:])
        socket.events(2)
    with open_socket(**header(person), **{"from": "open"}) as socket:
        established = socket.next()
        assert established["open_runs"] == []
        started = person.run()
        emit(person, started.events[0])
        assert [event["event_id"] for event in socket.events(1)] == started.event_ids[:1]


def test_a_newer_connection_of_a_tab_replaces_the_older_one(open_socket, person):
    with open_socket(**header(person), client_id="tab") as older:
        assert_established(older.next(), person)
        with open_socket(**header(person), client_id="tab") as newer:
            assert_established(newer.next(), person)
            assert older.next()["reason"] == "REPLACED"
            with pytest.raises(ConnectionClosed) as closed:
                older.connection.recv(timeout=SECONDS)
            assert closed.value.rcvd.code == 4508
