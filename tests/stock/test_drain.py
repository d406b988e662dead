"""The end of the process under load."""

import asyncio
import json
import re
import threading

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from contract import checked
from shell import SECONDS

# So many events come before the end is asked for.
EVENTS = 200


class Reader(threading.Thread):
    """Reads frames until the server closes. Whoever reads under load does no more than that."""

    def __init__(self, socket):
        super().__init__(daemon=True)
        self.socket = socket
        self.texts = [socket.recv(timeout=SECONDS)]
        self.events = 0
        self.enough = threading.Event()
        self.code = None
        self.start()

    def run(self):
        try:
            while True:
                self.texts.append(self.socket.recv(timeout=2 * SECONDS))
                self.events += '"type":"connection_' not in self.texts[-1]
                if self.events == EVENTS:
                    self.enough.set()
        except ConnectionClosed as closed:
            self.code = closed.rcvd and closed.rcvd.code

    @property
    def frames(self):
        return [checked(json.loads(text)) for text in self.texts]


class Producer(threading.Thread):
    """Emits one event after the other until one is refused."""

    def __init__(self, stubs, address, token, number):
        super().__init__(daemon=True)
        self.stubs, self.address, self.number = stubs, address, number
        self.metadata = (("authorization", f"Bearer {token}"),)
        self.receipts = []
        self.error = None
        self.start()

    def run(self):
        with grpc.insecure_channel(self.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            emitter = self.stubs.EventEmitterStub(channel)
            try:
                while True:
                    event = self.stubs.Event(user_id="demo", run_id=f"r{self.number}")
                    if self.receipts:
                        event.agent_thinking.reasoning = f"thought {len(self.receipts)}"
                    else:
                        event.agent_name = "agent"
                        event.agent_started.message = "On it"
                    request = self.stubs.EmitRequest(event=event)
                    answer = emitter.Emit(request, metadata=self.metadata, timeout=SECONDS)
                    self.receipts.append(answer.receipt)
            except grpc.RpcError as error:
                self.error = error

    @property
    def reason(self):
        """The service's own reason, where the service itself refused."""
        status = rpc_status.from_call(self.error)
        info = error_details_pb2.ErrorInfo()
        for detail in status.details if status else []:
            detail.Unpack(info)
        return info.reason


def test_sigterm_under_load_loses_nothing_that_was_acknowledged(shell, stubs):
    # What is under way decides when it ends, and no deadline.
    dev = shell.dev(EMITTER_DRAIN="300s")
    emit_token, read_token = (
        shell.run("emitter", "token", "--sub", "demo", "--scope", scope).out[0] for scope in ("emit", "subscribe")
    )
    headers = {"Authorization": f"Bearer {read_token}"}
    url = f"ws://{dev.http}/v1/stream"
    with connect(url, additional_headers=headers, proxy=None, open_timeout=SECONDS) as socket:
        reader = Reader(socket)
        producers = [Producer(stubs, dev.grpc, emit_token, number) for number in range(4)]
        assert reader.enough.wait(timeout=SECONDS), f"too few events came: {reader.texts[-3:]}, {dev.program!r}"

        before = [len(producer.receipts) for producer in producers]
        dev.program.terminate()
        for producer in producers:
            producer.join(timeout=SECONDS)
            assert not producer.is_alive(), f"{producer} is not refused: {dev.program!r}"
        assert dev.program.ended() == 0, dev.program
        reader.join(timeout=SECONDS)
        assert not reader.is_alive(), f"the reader goes on after the end: {dev.program!r}"

    for producer in producers:
        assert producer.error.code() == grpc.StatusCode.UNAVAILABLE, producer.error
        # Who had no turn until the service was gone is told by nobody.
        assert producer.reason in ("DRAINING", ""), producer.error

    frames = reader.frames
    assert frames[0]["type"] == "connection_established", frames[0]
    # The reader was told before it was sent away, and told when to come back.
    closing = frames[-1]
    assert (closing["type"], closing["reason"]) == ("connection_closing", "DRAINING"), frames[-3:]
    assert 100 <= closing["reconnect_after_ms"] <= 5000, closing
    assert reader.code == 4001, reader.code

    events = [frame for frame in frames if not frame["type"].startswith("connection_")]
    offsets = [event["offset"] for event in events]
    assert offsets == list(range(1, len(events) + 1)), "events are missing, twice, or out of order"
    read = {event["offset"]: event["event_id"] for event in events}
    receipts = [receipt for producer in producers for receipt in producer.receipts]
    assert len({receipt.position.offset for receipt in receipts}) == len(receipts)
    unread = {}
    for receipt in receipts:
        if receipt.position.offset <= offsets[-1]:
            assert read.get(receipt.position.offset) == receipt.event_id, receipt
        else:
            unread[receipt.position.offset] = receipt.event_id
    # What was acknowledged after the last that the reader got follows it without a hole: nothing between is lost.
    assert sorted(unread) == list(range(offsets[-1] + 1, offsets[-1] + 1 + len(unread))), (offsets[-1], unread)
    assert sum(before) >= EVENTS - len(producers), before
    # Within a run, the numbers count on.
    for producer in producers:
        assert [receipt.run_sequence for receipt in producer.receipts] == list(range(1, len(producer.receipts) + 1))
    assert re.fullmatch("[0-9a-f]{16}", events[0]["epoch"]), events[0]


def test_every_reader_is_told_before_the_process_ends(shell):
    dev = shell.dev()
    users = [f"user-{n}" for n in range(4)]
    tokens = [shell.run("emitter", "token", "--sub", user, "--scope", "subscribe").out[0] for user in users]

    async def read(token, connected):
        """Every frame that comes, and the code that ends them."""
        headers = {"Authorization": f"Bearer {token}"}
        async with async_connect(f"ws://{dev.http}/v1/stream", additional_headers=headers, proxy=None, open_timeout=SECONDS) as socket:
            frames = []
            try:
                while True:
                    frames.append(checked(json.loads(await socket.recv())))
                    if frames[-1]["type"] == "connection_caught_up":
                        connected.release()
            except ConnectionClosed as closed:
                return frames, closed.rcvd and closed.rcvd.code

    async def read_all():
        connected = asyncio.Semaphore(0)
        reading = [asyncio.create_task(read(token, connected)) for token in tokens for _ in range(12)]
        for _ in reading:
            await connected.acquire()
        dev.program.terminate()
        return await asyncio.gather(*reading)

    ends = asyncio.run(asyncio.wait_for(read_all(), timeout=SECONDS))
    assert dev.program.ended() == 0, dev.program
    told = [(frames[-1]["type"], code) for frames, code in ends]
    assert told == [("connection_closing", 4001)] * 48, told
