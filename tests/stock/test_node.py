"""Node's stock packages: `@grpc/grpc-js`, to which `@grpc/proto-loader` reads the protos, and `ws`."""

import json
from pathlib import Path

import pytest
from google.rpc import status_pb2

import projects
from clients import EVENTS, Clients, Told
from contract import checked
from server import ROOT

# Where the protos of google.rpc were installed.
GOOGLE = Path(status_pb2.__file__).parents[2]


@pytest.fixture(scope="module")
def told(server, tmp_path_factory):
    program = projects.HERE / "node/client.mjs"
    return Told(server, tmp_path_factory.mktemp("node"), "node", program, PROTO=ROOT / "proto", GOOGLE=GOOGLE)


class TestNode(Clients):
    @staticmethod
    def frames(told, step):
        """What a socket brought, less what only the connection is about."""
        first, *frames = [checked(json.loads(text)) for text in told[step]["frames"]]
        assert first["type"] == "connection_established" and first["user_id"] == told.user_id, first
        silent = ("connection_heartbeat", "connection_caught_up")
        return [frame for frame in frames if frame["type"] not in silent]

    def test_a_socket_brings_what_the_stream_brings(self, told):
        assert told["read_socket"]["protocol"] == "emitter.v1.json"
        frames = self.frames(told, "read_socket")
        numbers = [(frame["event_id"], frame["epoch"], frame["offset"], frame["run_sequence"]) for frame in frames]
        assert numbers == told.numbers("read")
        assert [frame["type"] for frame in frames] == [kind for kind, _ in [*EVENTS, *EVENTS, EVENTS[0]]]
        assert frames[1]["payload"] == EVENTS[1][1]
        # A browser gets JSON in JSON's place, and the status in small letters; the integer is exact on its way.
        assert frames[2]["payload"]["parameters"] == {"id": 9007199254740993}
        assert (frames[3]["payload"]["status"], frames[3]["payload"]["result"]) == ("succeeded", ["a", "b"])

    def test_a_socket_resumes_after_its_position(self, told):
        assert self.frames(told, "resumed_socket") == self.frames(told, "read_socket")[4:]

    def test_a_socket_closes_as_it_is_asked(self, told):
        assert told["read_socket"]["code"] == told["resumed_socket"]["code"] == 1000
