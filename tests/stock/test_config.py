"""Configurations: what is shown of them, what is refused, and what `serve` makes of one."""

import json
import re
import socket

import pytest

from shell import ANY_PORTS, CONFIG_SECRET


def test_a_good_config_is_shown(shell, config):
    shown = shell.run("emitter", "check-config", "--config", config, EMITTER_LIMITS__EVENT_BYTES="32KiB").out
    assert f'drain = "5s" # {config}' in shown, shown
    assert 'event_bytes = "32KiB" # EMITTER_LIMITS__EVENT_BYTES' in shown, shown
    assert "batch_events = 1000" in shown, shown
    # What is shown is itself a config.
    written = config.with_name("shown.toml")
    written.write_text("\n".join(shown))
    shell.run("emitter", "check-config", "--config", written)


def test_a_secret_in_a_config_is_not_shown(shell, tmp_path):
    shell.keeps(CONFIG_SECRET)
    file = tmp_path / "emitter.toml"
    file.write_text(f'[auth]\nissuer = "platform"\nsecret = "{CONFIG_SECRET}"\n')
    shown = shell.run("emitter", "check-config", "--config", file).out
    assert f'secret = "[set]" # {file}' in shown, shown
    shown = shell.run("emitter", "check-config", EMITTER_AUTH__ISSUER="platform", EMITTER_AUTH__SECRET=CONFIG_SECRET).out
    assert 'secret = "[set]" # EMITTER_AUTH__SECRET' in shown, shown


BAD = {
    "a text": ('drain = "soon"', "drain", "soon"),
    "a key": ("[limits]\nevent_bytez = 1", "limits.event_bytez", "is not a known key"),
    "a bound": ('[limits]\nevent_bytes = "1GiB"', "limits.event_bytes", "1048576"),
    "a type": ('[limits]\nbatch_events = "many"', "limits.batch_events", "many"),
    "an open quote": (f'[auth]\nissuer = "x"\nsecret = "{CONFIG_SECRET}', None, "line 3"),
    "no quotes": (f'[auth]\nissuer = "x"\nsecret = {CONFIG_SECRET}', None, "line 3"),
    "a list for a secret": (f'[auth]\nissuer = "x"\nsecret = ["{CONFIG_SECRET}"]', "auth.secret", "text"),
    "a short secret": ('[auth]\nissuer = "x"\nsecret = "too short, but a secret"', "auth.secret", "32"),
    "no secret file": ('[auth]\nissuer = "x"\nsecret_file = "not/there"', "auth.secret_file", "not/there"),
    "no issuer": (f'[auth]\nsecret = "{CONFIG_SECRET}"', "auth.issuer", ""),
}


@pytest.mark.parametrize("command", ["check-config", "serve"])
@pytest.mark.parametrize(("text", "key", "problem"), BAD.values(), ids=BAD)
def test_a_bad_config_exits_64_and_is_named(shell, tmp_path, command, text, key, problem):
    for secret in (CONFIG_SECRET, "too short, but a secret"):
        shell.keeps(secret)
    file = tmp_path / "emitter.toml"
    good = '[auth]\nissuer = "platform"\nsecret = "{}"\n'.format("s" * 32)
    file.write_text(text if "[auth]" in text else f"{text}\n{good}")
    ran = shell.run("emitter", command, "--config", file, exits=64)
    errors = [error for error in ran.err if error.startswith("error: ")]
    assert errors == ran.err, ran
    (error,) = [error for error in errors if not key or error.startswith(f"error: {key}: ")]
    assert problem in error, ran
    # A key that is nowhere has no place.
    assert str(file) in error or key == "auth.issuer", ran


@pytest.mark.parametrize("command", ["check-config", "serve", "dev"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMITTER_DRAIN", "soon"),
        ("EMITTER_LIMITS__BATCH_EVENTS", "many"),
        ("EMITTER_LIMITS__NO_SUCH", "1"),
        ("EMITTER_GRPC_LISTEN", "nowhere"),
    ],
)
def test_a_bad_variable_exits_64_and_is_named(shell, config, command, name, value):
    flags = [] if command == "dev" else ["--config", config]
    ran = shell.run("emitter", command, *flags, exits=64, **{name: value})
    (error,) = ran.err
    assert name in error and name.removeprefix("EMITTER_").lower().replace("__", ".") in error, ran


def test_unknown_keys_of_every_source_are_named_at_once(shell, config):
    config.write_text("no_such = 1\nnor_this = 2\n" + config.read_text())
    ran = shell.run("emitter", "check-config", "--config", config, exits=64, EMITTER_NOT_A_KEY="1")
    assert sorted(ran.err) == [
        f"error: no_such: is not a known key ({config})",
        f"error: nor_this: is not a known key ({config})",
        "error: not_a_key: is not a known key (EMITTER_NOT_A_KEY)",
    ]


def test_mistakes_of_every_kind_are_reported_at_once(shell, config):
    """Unknown keys, wrong types, values out of bounds and wrong addresses, of the file and of variables."""
    config.write_text('drain = 5\nhttp_listen = ":8080"\n' + re.sub("http_listen.*\n|drain.*\n", "", config.read_text()))
    variables = {"EMITTER_AUTH_SECRET": "x", "EMITTER_LIMITS__DEPTH": "0", "EMITTER_LIMITS__LANES": "many"}
    ran = shell.run("emitter", "check-config", "--config", config, exits=64, **variables)
    assert sorted(ran.err) == [
        "error: auth_secret: is not a known key: did you mean EMITTER_AUTH__SECRET? (EMITTER_AUTH_SECRET)",
        f"error: drain: invalid type: found signed int `5`, expected a duration ({config})",
        'error: http_listen: ":8080" is not an address: expected HOST:PORT, such as 127.0.0.1:8080, or 0.0.0.0:8080 '
        f"for all interfaces ({config})",
        "error: limits.depth: 0 is not within 1 and 32 (EMITTER_LIMITS__DEPTH)",
        'error: limits.lanes: "many" is not a whole number (EMITTER_LIMITS__LANES)',
    ]


def test_a_listener_takes_a_host_name(shell, config):
    config.write_text(config.read_text().replace("127.0.0.1", "localhost"))
    serve = shell.start("emitter", "serve", "--config", config)
    told = serve.until("where it listens", lambda: serve.out[0] if serve.out else None)
    assert re.search(r"gRPC on (127\.0\.0\.1|\[::1\]):\d+, ", told), told
    serve.terminate()
    assert serve.ended() == 0, serve


@pytest.mark.parametrize("below", ["", "/events"])
def test_a_data_directory_that_is_a_file_comes_with_a_remedy(shell, config, tmp_path, below):
    file = tmp_path / "file"
    file.write_text("x")
    ran = shell.run("emitter", "serve", "--config", config, "--data-dir", f"{file}{below}", exits=1)
    (error,) = [text for text in ran.err if text.startswith("error: ")]
    assert error.startswith(f"error: {file}{below}: ") and "engine.data_dir (--data-dir) must name a directory" in error, ran


def test_a_host_name_that_is_not_known_is_named(shell, config):
    config.write_text(config.read_text().replace("127.0.0.1", "no-such-host.invalid", 1))
    ran = shell.run("emitter", "serve", "--config", config, exits=1)
    (error,) = [text for text in ran.err if text.startswith("error: ")]
    assert error.startswith("error: grpc_listen: cannot listen on no-such-host.invalid:0: "), ran


def test_a_config_that_is_not_there_exits_64(shell):
    for command in ("check-config", "serve"):
        (error,) = shell.run("emitter", command, "--config", "nowhere.toml", exits=64).err
        assert "nowhere.toml" in error, error


def test_serve_serves_what_the_config_says(shell, config):
    serve = shell.start("emitter", "serve", "--config", config)
    told, kept = serve.until("where it listens, and what keeps events", lambda: serve.out[:2] if len(serve.out) > 1 else None)
    grpc, http, admin = re.fullmatch(r"listening: gRPC on (\S+), HTTP on (\S+), admin on (\S+)", told).groups()
    assert kept == "engine: memory; lost of what was acknowledged: everything, when the process ends"

    flags = "--issuer platform --secret-file secret"
    emit_token, read_token = (
        shell.run("emitter", "token", *flags.split(), "--sub", sub, "--scope", scope).out[0]
        for sub, scope in (("svc", "emit"), ("u1", "subscribe"))
    )
    tail = shell.tail("--http", f"http://{http}", "--token", read_token, "--from", "oldest")
    to = ["--grpc", f"http://{grpc}", "--user", "u1", "--run", "r1", "--type", "agent_started", "--agent", "a"]
    shell.run("emitter", "emit", *to, EMITTER_TOKEN=emit_token)
    tail.until("the event", lambda: tail.frames)
    # A token of another secret does not get in.
    flags = "--sub svc --scope emit --issuer platform --secret-file other"
    (config.parent / "other").write_text("x" * 32)
    other = shell.run("emitter", "token", *flags.split()).out[0]
    (refused,) = shell.run("emitter", "emit", *to, exits=1, EMITTER_TOKEN=other).out
    assert refused.startswith("refused  UNAUTHENTICATED: "), refused
    for token in (emit_token, read_token, other):
        assert token not in "\n".join(serve.out + serve.err), "a token is in the log"

    serve.terminate()
    assert serve.ended() == 0, serve
    assert admin != http


@pytest.mark.parametrize("listener", ["grpc", "http", "admin"])
@pytest.mark.parametrize("command", ["serve", "dev"])
def test_a_port_in_use_is_named(shell, config, command, listener):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:{}".format(taken.getsockname()[1])
        flags = ANY_PORTS if command == "dev" else ["--config", config]
        flags = [flag for flag in flags if f"--{listener}" not in str(flag)]
        ran = shell.run("emitter", command, *flags, f"--{listener}-listen={address}", exits=1)
    (error,) = [text for text in ran.err if text.startswith("error: ")]
    assert f"{listener}_listen" in error and address in error, ran
    assert not ran.out, ran


def test_logs_are_json_from_the_first_line(shell, config):
    """Also where the service does not start, whether a flag, a variable or the file asks for it."""
    in_file = config.with_name("json.toml")
    in_file.write_text(config.read_text() + "[log]\njson = true\n")
    wrong = {"EMITTER_DRAIN": "soon"}
    for command, variables in [
        (["serve", "--json", "--config", config], {}),
        (["serve", "--config", config], {"EMITTER_LOG__JSON": "true"}),
        (["serve", "--config", in_file], {}),
        (["dev", "--json"], {}),
    ]:
        refused = shell.run("emitter", *command, exits=64, **variables, **wrong)
        (line,) = map(json.loads, refused.err)
        assert (line["level"], "EMITTER_DRAIN" in line["message"]) == ("ERROR", True), refused
    serve = shell.start("emitter", "serve", "--config", in_file)
    listening = json.loads(serve.until("where it listens", lambda: serve.out)[0])
    assert listening["type"] == "listening", serve
    serve.terminate()
    assert serve.ended() == 0 and all(json.loads(line) for line in serve.err), serve


def test_dev_takes_the_prices_of_a_file(shell, tmp_path):
    (tmp_path / "prices.toml").write_text(
        '[[prices]]\nprovider = "acme"\nmodel = "m1"\ninput = "1"\noutput = "2"\n'
    )
    shell.dev("--config", "prices.toml")
    usage = {"provider": "acme", "model": "m1", "input_tokens": 1_000_000, "output_tokens": 1_000_000}
    event = {"type": "agent_started", "user_id": "demo", "run_id": "r1", "agent_name": "a", "usage": usage, "payload": {}}
    shell.run("emitter", "emit", "-", stdin=json.dumps(event) + "\n")
    (row,) = map(json.loads, shell.run("emitter", "usage", "--json").out[:1])
    assert "3000000000" in json.dumps(row), row
