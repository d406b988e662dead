"""What a person learns whose token is refused."""

import json
import time
import urllib.error
import urllib.request

import grpc
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from server import Server, jwt

SECONDS = 60
OTHER_AUDIENCE = 'the claim `aud` is "billing": expected `emitter`, or a list with it'


@pytest.fixture
def alone(tmp_path):
    """A server of this test alone: how many lines its log gets in a while is limited."""
    server = Server(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()
    server.assert_clean()


def token(server, **changes):
    claims = {"iss": "emitter-dev", "aud": "emitter", "sub": "u1", "scope": "emit subscribe", "exp": time.time() + 600}
    made = jwt({**claims, **changes}, server.secret)
    server.issued.append(made)
    return made


def over_grpc(server, stubs, bearer):
    with grpc.insecure_channel(server.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        emitter = stubs.EventEmitterStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            emitter.Emit(stubs.EmitRequest(), metadata=[("authorization", f"Bearer {bearer}")], timeout=SECONDS)
        return refused.value.details()


def over_sse(server, stubs, bearer):
    request = urllib.request.Request(f"http://{server.http}/v1/events", headers={"authorization": f"Bearer {bearer}"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=SECONDS)
    return json.load(refused.value)["message"]


def over_websocket(server, stubs, bearer):
    headers = {"authorization": f"Bearer {bearer}"}
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{server.http}/v1/stream", additional_headers=headers, proxy=None, open_timeout=SECONDS)
    return json.loads(refused.value.response.body)["message"]


def on_a_socket(server, stubs, bearer):
    headers = {"authorization": f"Bearer {token(server)}"}
    with connect(f"ws://{server.http}/v1/stream", additional_headers=headers, proxy=None) as socket:
        socket.send(json.dumps({"type": "authenticate", "token": bearer}))
        while (frame := json.loads(socket.recv(timeout=SECONDS)))["type"] != "connection_error":
            pass
        return frame["message"]


@pytest.mark.parametrize("transport", [over_grpc, over_sse, over_websocket, on_a_socket])
def test_a_refusal_names_the_claim_its_value_and_what_is_expected(alone, stubs, transport):
    assert transport(alone, stubs, token(alone, aud="billing")) == OTHER_AUDIENCE
    # Nothing is believed of a token that somebody else signed.
    assert transport(alone, stubs, alone.forged_token("u1", "emit")) == "the credential is not valid"
    logged = [json.loads(line) for line in alone.log.read_text().splitlines() if "a token is refused" in line]
    assert [(line["check"], line["message"]) for line in logged] == [
        ("aud", f"a token is refused: {OTHER_AUDIENCE}"),
        ("signature", "a token is refused: the credential is not valid"),
    ], logged


def test_a_flood_of_wrong_tokens_does_not_flood_the_log(alone, stubs):
    for _ in range(50):
        over_sse(alone, stubs, "e30.e30.e30")
    assert alone.log.read_text().count("a token is refused") <= 20


def test_scopes_may_be_a_list(alone, stubs):
    bearer = token(alone, scope=["emit", "subscribe"])
    headers = {"authorization": f"Bearer {bearer}"}
    with connect(f"ws://{alone.http}/v1/stream", additional_headers=headers, proxy=None) as socket:
        assert json.loads(socket.recv(timeout=SECONDS))["type"] == "connection_established"
