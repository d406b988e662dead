"""Python's stock gRPC: grpcio, with stubs that grpcio-tools made of the protos."""

import re

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

from people import fresh

# How long anything may take that ought to be immediate.
SECONDS = 60


@pytest.fixture
def emitter(stubs, channel):
    return stubs.EventEmitterStub(channel)


@pytest.fixture
def subscriber(stubs, channel):
    return stubs.EventSubscriberStub(channel)


@pytest.fixture
def messages(stubs):
    """The protobuf messages of a run's events."""

    def messages(run):
        return [json_format.ParseDict(event, stubs.Event()) for event in run.events]

    return messages


class Reading:
    """One Subscribe call, which begins when it is made."""

    def __init__(self, stubs, subscriber, person, **request):
        self.seen = []
        request = stubs.SubscribeRequest(**request)
        self.call = subscriber.Subscribe(request, metadata=person.reading, timeout=2 * SECONDS)
        self.established = self.next("established")
        assert self.established.user_id == person.user_id
        assert self.established.connection_id
        assert re.fullmatch("[0-9a-f]{16}", self.established.position.epoch), self.established

    def next(self, kind):
        """The next item, which is of this kind; news of the cursor is passed over."""
        try:
            for response in self.call:
                self.seen.append(response)
                item = response.WhichOneof("item")
                if item != "caught_up":
                    assert item == kind, f"wanted {kind}, got {item}; all that was seen: {self.seen}"
                    return getattr(response, item)
        except grpc.RpcError as error:
            raise AssertionError(f"wanted {kind}, got {error!r}; all that was seen: {self.seen}") from error
        raise AssertionError(f"wanted {kind}, but the stream ended; all that was seen: {self.seen}")

    def events(self, count):
        return [self.next("event") for _ in range(count)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.call.cancel()


def emit_one_by_one(stubs, emitter, person, events):
    return [
        emitter.Emit(stubs.EmitRequest(event=event), metadata=person.emitting, timeout=SECONDS).receipt
        for event in events
    ]


def emit_batch(stubs, emitter, person, events):
    response = emitter.EmitBatch(stubs.EmitBatchRequest(events=events), metadata=person.emitting, timeout=SECONDS)
    assert response.refused_count == 0, response
    assert [result.WhichOneof("outcome") for result in response.results] == ["receipt"] * len(events), response
    return [result.receipt for result in response.results]


def assert_receipts(run, receipts):
    assert [receipt.event_id for receipt in receipts] == run.event_ids
    assert [receipt.run_sequence for receipt in receipts] == [1, 2, 3, 4, 5]
    assert not any(receipt.duplicate for receipt in receipts)
    assert all(receipt.HasField("recorded_at") for receipt in receipts)
    assert len({receipt.position.epoch for receipt in receipts}) == 1
    offsets = [receipt.position.offset for receipt in receipts]
    assert offsets == sorted(set(offsets)) and offsets[0] > 0, offsets


def assert_read_back(run, sent, receipts, events):
    """What was read is what was sent, in the order and under the numbers of the receipts."""
    assert [(event.event.event_id, event.position, event.run_sequence, event.recorded_at) for event in events] == [
        (receipt.event_id, receipt.position, receipt.run_sequence, receipt.recorded_at) for receipt in receipts
    ]
    for event, message, arm in zip(events, sent, run.TYPES, strict=True):
        event = event.event
        assert event.WhichOneof("payload") == arm
        want = type(message)()
        want.CopyFrom(message)
        if arm.startswith("tool_"):
            getattr(want, arm).call_sequence = run.CALL_SEQUENCE
        assert getattr(event, arm) == getattr(want, arm)
        assert (event.user_id, event.run_id) == (run.user_id, run.run_id)
        assert (event.thread_id, event.agent_name) == (run.thread_id, run.agent_name), "inherited from the start"
        assert not event.HasField("source"), "the source is not for readers"


def error_of(call):
    """The code, ErrorInfo and BadRequest of a call that must fail, read through grpcio-status."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(caught.value)
    assert status is not None, f"no status details: {caught.value!r}"
    assert status.code == caught.value.code().value[0]
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad_request)
    assert info.domain == "emitter", status
    return caught.value.code(), info.reason, [violation.field for violation in bad_request.field_violations]


@pytest.mark.parametrize("emit", [emit_one_by_one, emit_batch])
def test_a_run_is_read_back(stubs, emitter, subscriber, messages, person, emit):
    run = person.run()
    sent = messages(run)
    receipts = emit(stubs, emitter, person, sent)
    assert_receipts(run, receipts)

    with Reading(stubs, subscriber, person, **{"from": stubs.START_FROM_OLDEST}) as reading:
        assert_read_back(run, sent, receipts, reading.events(5))


@pytest.mark.parametrize("emit", [emit_one_by_one, emit_batch])
def test_a_run_is_read_live(stubs, emitter, subscriber, messages, person, emit):
    run = person.run()
    sent = messages(run)
    with Reading(stubs, subscriber, person) as reading:
        receipts = emit(stubs, emitter, person, sent)
        assert_read_back(run, sent, receipts, reading.events(5))
    assert_receipts(run, receipts)


def test_two_runs_interleave_in_the_order_of_their_receipts(stubs, emitter, subscriber, messages, person):
    runs = [person.run(), person.run()]
    sent = [message for pair in zip(*map(messages, runs)) for message in pair]
    receipts = emit_one_by_one(stubs, emitter, person, sent)
    for nth, run in enumerate(runs):
        assert_receipts(run, receipts[nth::2])

    with Reading(stubs, subscriber, person, **{"from": stubs.START_FROM_OLDEST}) as reading:
        events = reading.events(10)
    assert [event.event.event_id for event in events] == [receipt.event_id for receipt in receipts]
    offsets = [event.position.offset for event in events]
    assert offsets == sorted(set(offsets)), offsets
    assert len({event.position.epoch for event in events}) == 1
    for nth, run in enumerate(runs):
        assert_read_back(run, sent[nth::2], receipts[nth::2], events[nth::2])


def test_a_reader_resumes_after_its_position(stubs, emitter, subscriber, messages, person):
    run = person.run()
    sent = messages(run)
    receipts = emit_batch(stubs, emitter, person, sent)

    for read in range(5):
        with Reading(stubs, subscriber, person, after=receipts[read].position) as reading:
            assert reading.established.position == receipts[read].position
            rest = [event.event.event_id for event in reading.events(4 - read)]
        assert rest == run.event_ids[read + 1 :]


def test_nobody_reads_another_users_events(stubs, emitter, subscriber, messages, person, other):
    with Reading(stubs, subscriber, person) as mine, Reading(stubs, subscriber, other) as theirs:
        runs = {person: person.run(), other: other.run()}
        # One credential may emit to both, so one batch mixes them.
        mixed = [message for pair in zip(*map(messages, runs.values())) for message in pair]
        emit_batch(stubs, emitter, person, mixed)
        assert [event.event.event_id for event in mine.events(5)] == runs[person].event_ids
        assert [event.event.event_id for event in theirs.events(5)] == runs[other].event_ids

    # Not by asking for it either.
    code, reason, _ = error_of(
        lambda: next(
            subscriber.Subscribe(
                stubs.SubscribeRequest(user_id=other.user_id), metadata=person.reading, timeout=SECONDS
            )
        )
    )
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert reason in ("SCOPE_MISSING", "USER_FORBIDDEN")


@pytest.mark.parametrize("retry", [emit_one_by_one, emit_batch])
def test_a_retry_gets_the_first_receipt(stubs, emitter, subscriber, messages, person, retry):
    run = person.run()
    sent = messages(run)
    first = emit_one_by_one(stubs, emitter, person, sent[:3])
    again = retry(stubs, emitter, person, sent[:3])
    assert all(receipt.duplicate for receipt in again), again
    for receipt in again:
        receipt.duplicate = False
    assert again == first

    # It was stored once: the run goes on where it was.
    first += emit_batch(stubs, emitter, person, sent[3:])
    assert_receipts(run, first)
    with Reading(stubs, subscriber, person, **{"from": stubs.START_FROM_OLDEST}) as reading:
        assert_read_back(run, sent, first, reading.events(5))


def test_a_missing_user_is_refused_by_field(stubs, emitter, messages, person):
    event = messages(person.run())[0]
    event.ClearField("user_id")
    assert error_of(
        lambda: emitter.Emit(stubs.EmitRequest(event=event), metadata=person.emitting, timeout=SECONDS)
    ) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_EVENT", ["event.user_id"])


def test_a_batch_refuses_the_invalid_item_alone(stubs, emitter, subscriber, messages, person):
    run = person.run()
    sent = messages(run)
    invalid = messages(person.run())[0]
    invalid.ClearField("user_id")
    batch = [sent[0], invalid, *sent[1:]]
    response = emitter.EmitBatch(stubs.EmitBatchRequest(events=batch), metadata=person.emitting, timeout=SECONDS)

    assert response.refused_count == 1
    assert [result.WhichOneof("outcome") for result in response.results] == ["receipt", "refusal"] + ["receipt"] * 4
    refusal = response.results[1].refusal
    assert (refusal.code, refusal.reason) == (code_pb2.INVALID_ARGUMENT, "INVALID_EVENT")
    assert [violation.field for violation in refusal.violations] == ["events[1].user_id"]
    receipts = [result.receipt for result in response.results if result.HasField("receipt")]
    assert_receipts(run, receipts)
    with Reading(stubs, subscriber, person, **{"from": stubs.START_FROM_OLDEST}) as reading:
        assert_read_back(run, sent, receipts, reading.events(5))


def test_credentials_are_needed(stubs, emitter, subscriber, messages, person, server):
    request = stubs.EmitRequest(event=messages(person.run())[0])
    unauthenticated = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", [])
    forged = server.forged_token(person.user_id, "emit")
    for metadata in [(), (("authorization", "Bearer nonsense"),), (("authorization", f"Bearer {forged}"),)]:
        assert error_of(lambda: emitter.Emit(request, metadata=metadata, timeout=SECONDS)) == unauthenticated
        subscribe = stubs.SubscribeRequest()
        assert (
            error_of(lambda: next(subscriber.Subscribe(subscribe, metadata=metadata, timeout=SECONDS)))
            == unauthenticated
        )

    scope_missing = (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING", [])
    assert error_of(lambda: emitter.Emit(request, metadata=person.reading, timeout=SECONDS)) == scope_missing


def test_a_tenant_has_streams_of_its_own(stubs, emitter, subscriber, messages, person, server):
    """A user of the same name in another tenant is somebody else."""
    tenant = fresh("tenant")
    token = server.token(person.user_id, "emit", "subscribe", tenant=tenant)
    there = (("authorization", f"Bearer {token}"),)
    run = person.run()
    receipts = emit_one_by_one(stubs, emitter, person, messages(run))

    elsewhere = person.run()
    for message in messages(elsewhere):
        emitter.Emit(stubs.EmitRequest(event=message), metadata=there, timeout=SECONDS)
    person.read_token = token
    with Reading(stubs, subscriber, person, **{"from": stubs.START_FROM_OLDEST}) as reading:
        assert [event.event.event_id for event in reading.events(5)] == elsewhere.event_ids
    assert_receipts(run, receipts)
