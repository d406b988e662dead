"""A page in a real browser, with nothing but `new WebSocket`. Events are emitted through grpcio."""

import json

import grpc
import pytest
from google.protobuf import json_format

from browser import serving
from contract import checked
from projects import HERE

SECONDS = 60


@pytest.fixture(scope="module")
def address():
    with serving(HERE / "node") as address:
        yield f"{address}/page.html"


@pytest.fixture
def emit(stubs, channel):
    emitter = stubs.EventEmitterStub(channel)

    def emit(person, *events):
        events = [json_format.ParseDict(event, stubs.Event()) for event in events]
        request = stubs.EmitBatchRequest(events=events)
        response = emitter.EmitBatch(request, metadata=person.emitting, timeout=SECONDS)
        assert response.refused_count == 0, response
        return [result.receipt for result in response.results]

    return emit


class Page:
    def __init__(self, chromium, address, server, token, query):
        self.tab = chromium.open(address)
        url = f"ws://{server.http}/v1/stream?{query}"
        self.tab.tell(f"connect({json.dumps(url)}, {json.dumps(token)})")

    def frames(self, count):
        """The first frames, once there are as many, less those that tell only that the connection lives."""
        told = 'frames.filter((text) => !/"type":"connection_(heartbeat|caught_up)"/.test(text))'
        self.tab.until(f"{told}.length >= {count} || closed", "({ frames, closed })")
        return [checked(json.loads(text)) for text in self.tab.tell(told)]

    def closed(self):
        self.tab.until("closed", "({ frames, closed })")
        return self.tab.tell("closed")


@pytest.fixture
def page(chromium, address, server):
    def page(token, query="from=head"):
        return Page(chromium, address, server, token, query)

    return page


def numbers(frames):
    return [(frame["event_id"], frame["epoch"], frame["offset"], frame["run_sequence"]) for frame in frames]


def told_in(receipts):
    return [
        (receipt.event_id, receipt.position.epoch, receipt.position.offset, receipt.run_sequence)
        for receipt in receipts
    ]


def test_a_page_shows_a_whole_run_live(page, emit, person, other):
    mine, theirs = person.run(), other.run()
    here = page(person.read_token)
    (established,) = here.frames(1)
    assert established["type"] == "connection_established" and established["user_id"] == person.user_id
    receipts = []
    # Another user's events come between, so that any that strays is among the frames.
    for event, their_event in zip(mine.events, theirs.events):
        emit(other, their_event)
        receipts += emit(person, event)
    _, *frames = here.frames(6)
    assert numbers(frames) == told_in(receipts)
    assert [frame["type"] for frame in frames] == mine.TYPES
    assert [frame["payload"] for frame in frames] == mine.payloads
    assert here.tab.tell("socket.protocol") == "emitter.v1.json"


def test_a_page_resumes_after_its_position(page, emit, person):
    run = person.run()
    receipts = emit(person, *run.events)
    _, *everything = page(person.read_token, "from=oldest").frames(6)
    assert numbers(everything) == told_in(receipts)
    after = f"{everything[1]['epoch']}-{everything[1]['offset']}"
    _, *rest = page(person.read_token, f"after={after}").frames(4)
    assert rest == everything[2:]


def test_a_page_is_told_why_it_may_not_read(page, server, person):
    forged = server.forged_token(person.user_id, "subscribe")
    assert page(forged).closed()["code"] == 4500
    # And an emitter's credential does not read.
    assert page(person.emit_token).closed()["code"] == 4500


def test_a_tab_that_comes_back_closes_the_one_before(page, person):
    older = page(person.read_token, "client_id=tab")
    older.frames(1)
    newer = page(person.read_token, "client_id=tab")
    newer.frames(1)
    assert older.closed()["code"] == 4508
    assert newer.tab.tell("closed") is None
