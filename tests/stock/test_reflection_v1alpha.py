"""Reflection in its v1alpha version, the only one that Python's stock client and older grpcurl builds speak."""

import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


@pytest.fixture
def database(channel):
    return ProtoReflectionDescriptorDatabase(channel)


def test_it_lists_the_services(database):
    services = set(database.get_services())
    assert services >= {"emitter.v1.EventEmitter", "emitter.v1.EventSubscriber", "grpc.health.v1.Health"}, services


def test_it_is_enough_to_emit_a_run(database, channel, person):
    """No stubs and no protos: everything that a client needs comes from the server."""
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName("emitter.v1.EventEmitter").FindMethodByName("Emit")
    request_class = message_factory.GetMessageClass(method.input_type)
    response_class = message_factory.GetMessageClass(method.output_type)
    emit = channel.unary_unary(
        "/emitter.v1.EventEmitter/Emit",
        request_serializer=request_class.SerializeToString,
        response_deserializer=response_class.FromString,
    )
    run = person.run()
    receipts = [
        emit(json_format.ParseDict({"event": event}, request_class()), metadata=person.emitting, timeout=60).receipt
        for event in run.events
    ]
    assert [receipt.event_id for receipt in receipts] == run.event_ids
    assert [receipt.run_sequence for receipt in receipts] == [1, 2, 3, 4, 5]


def test_it_knows_the_error_details(database):
    pool = descriptor_pool.DescriptorPool(database)
    for name in ("ErrorInfo", "BadRequest", "RetryInfo", "QuotaFailure"):
        assert pool.FindMessageTypeByName(f"google.rpc.{name}").fields
