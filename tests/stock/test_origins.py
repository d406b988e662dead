"""Pages of which origins may connect, and what a refused one and the operator learn."""

import json
import urllib.error
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from shell import SECONDS

LISTED = "https://*.example.com,http://localhost:3000"


@pytest.fixture
def listed(shell):
    """A service for development that admits only these origins."""
    return shell.dev(EMITTER_ORIGINS=LISTED)


def token(shell):
    return shell.run("emitter", "token", "--sub", "u1", "--scope", "subscribe").out[0]


def closing(http, bearer, origin):
    """The code and the reason that a WebSocket of this origin is closed with; `None` if it stays open."""
    headers = {"Authorization": f"Bearer {bearer}"}
    url = f"ws://{http}/v1/stream"
    with connect(url, additional_headers=headers, origin=origin, proxy=None, open_timeout=SECONDS) as socket:
        try:
            json.loads(socket.recv(timeout=SECONDS))
            return None
        except ConnectionClosed as closed:
            return closed.rcvd.code, closed.rcvd.reason


def events(http, bearer, origin):
    """The status of a request for the event stream, and the body of a refusal."""
    headers = {"Authorization": f"Bearer {bearer}", "Origin": origin}
    request = urllib.request.Request(f"http://{http}/v1/events", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            return answer.status, None
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())


@pytest.mark.parametrize("origin", ["https://app.example.com", "https://a.b.example.com", "http://localhost:3000"])
def test_subdomains_of_a_pattern_are_admitted(shell, listed, origin):
    bearer = token(shell)
    assert closing(listed.http, bearer, origin) is None
    assert events(listed.http, bearer, origin) == (200, None)


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "https://evilexample.com",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "http://localhost:3001",
    ],
)
def test_a_refused_origin_is_named_with_the_setting(shell, listed, origin):
    bearer = token(shell)
    message = f"{origin} is not in `origins`"
    assert closing(listed.http, bearer, origin) == (4505, f"ORIGIN_REFUSED: {message}")
    assert events(listed.http, bearer, origin) == (403, {"reason": "ORIGIN_REFUSED", "message": message})

    def logged():
        return [line for line in listed.program.err if "origins" in line and origin in line]

    listed.program.until("the origin in the log", lambda: len(logged()) == 2)
    assert all(json.loads(line)["level"] == "WARN" for line in logged()), logged()


def test_refused_origins_are_logged_within_a_bound(shell, listed):
    """A page's author chooses both the origin and how often it asks."""
    bearer = token(shell)
    for n in range(30):
        assert events(listed.http, bearer, f"https://{n}.{'x' * 1000}")[0] == 403
    # What comes after them in the log has come after them.
    listed.program.terminate()
    assert listed.program.ended() == 0, listed.program
    lines = [line for line in listed.program.err if "origins" in line]
    assert len(lines) == 10 and max(map(len, lines)) < 500, lines
