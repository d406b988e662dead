"""Server-sent events through Python's own `http.client`. Events are emitted through grpcio."""

import http.client
import json
from urllib.parse import urlencode

import pytest
from google.protobuf import json_format

from contract import checked
from test_websockets import assert_established, assert_frames, position

# How long anything may take that ought to be immediate.
SECONDS = 60


class Events:
    """A response that is read line by line, as the HTML standard reads `text/event-stream`."""

    def __init__(self, server, person, last_event_id=None, **query):
        self.connection = http.client.HTTPConnection(server.http, timeout=SECONDS)
        headers = {"Authorization": f"Bearer {person.read_token}", "Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        self.connection.request("GET", f"/v1/events?{urlencode(query)}", headers=headers)
        self.response = self.connection.getresponse()
        self.last_event_id = last_event_id

    def __enter__(self):
        assert self.response.status == 200, self.response.read()
        assert self.response.headers["Content-Type"] == "text/event-stream"
        return self

    def __exit__(self, *_):
        self.connection.close()

    def next(self):
        """The next frame that tells something: heartbeats and news of the cursor are passed over."""
        while True:
            data = []
            while line := self.response.readline().decode().removesuffix("\n"):
                name, _, value = line.partition(": ")
                assert name in ("id", "data", "retry"), line
                if name == "data":
                    data.append(value)
                elif name == "id":
                    self.last_event_id = value
            assert data, "the stream ended"
            frame = checked(json.loads("\n".join(data)))
            if frame["type"] not in ("connection_heartbeat", "connection_caught_up"):
                return frame


@pytest.fixture
def emit_run(stubs, channel):
    emitter = stubs.EventEmitterStub(channel)

    def emit_run(person, run):
        request = stubs.EmitBatchRequest(events=[json_format.ParseDict(event, stubs.Event()) for event in run.events])
        response = emitter.EmitBatch(request, metadata=person.emitting, timeout=SECONDS)
        assert response.refused_count == 0, response
        return [result.receipt for result in response.results]

    return emit_run


def test_a_run_is_read_live_and_resumed_by_last_event_id(server, emit_run, person, other):
    run, later = person.run(), person.run()
    with Events(server, person) as events:
        assert_established(events.next(), person)
        emit_run(other, other.run())
        receipts = emit_run(person, run)
        frames = [events.next(), events.next()]
        seen = events.last_event_id
    assert seen == position(receipts[1])
    later_receipts = emit_run(person, later)
    # The URL says where the first connection began; the header, where this one goes on.
    with Events(server, person, last_event_id=seen, **{"from": "oldest"}) as events:
        established = events.next()
        assert_established(established, person)
        assert established["position"] == seen
        frames += [events.next() for _ in range(3)]
        assert_frames(run, receipts, frames)
        assert_frames(later, later_receipts, [events.next() for _ in range(5)])


def test_a_refusal_is_a_status_and_a_reason(server, person):
    refused = Events(server, person, last_event_id="yesterday").response
    body = json.load(refused)
    assert (refused.status, body["reason"]) == (400, "INVALID_REQUEST"), body
    assert "last-event-id" in body["message"]
