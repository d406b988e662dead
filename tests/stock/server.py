"""The server under test: a process of its own, on ports that it chose."""

import base64
import hashlib
import hmac
import json
import os
import secrets
import signal
import subprocess
import threading
import time
import uuid
from pathlib import Path
from queue import Empty, Queue

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
STOP_SECONDS = 35
COMMAND_SECONDS = 60


def base64url(data):
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(claims, secret):
    """RFC 7519 with HS256, as any library would make it."""
    signed = ".".join(base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{base64url(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


class Server:
    def __init__(self, directory):
        self.binary = Path(os.environ.get("EMITTER_BIN") or ROOT / "target/debug/emitter").absolute()
        self.session_file = directory / "session"
        self.log = directory / "log"
        self.secret = secrets.token_hex(32)
        self.issued = []
        self.process = None
        self.printed = Queue()
        # Settings of the shell that runs the tests are not for this server.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("EMITTER_")}
        self.environment["EMITTER_DEV_SECRET"] = self.secret

    def start(self):
        assert self.binary.exists(), f"{self.binary} is not there: build it first, or name another in EMITTER_BIN"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self.binary, "dev", "--json"]
                + ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
                + ["--session-file", self.session_file],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        threading.Thread(target=self._read_output, daemon=True).start()
        try:
            first = self.printed.get(timeout=START_SECONDS)
        except Empty:
            first = None
        if first is None:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"the server did not say where it listens, it ended with {self.process.returncode}:\n{self.log_tail()}"
            )
        listening = json.loads(first)
        assert listening["type"] == "listening", first
        self.grpc = listening["grpc"]
        self.http = listening["http"]
        self.admin = listening["admin"]

    def _read_output(self):
        for line in self.process.stdout:
            self.printed.put(line)
        self.printed.put(None)

    def token(self, sub, *scopes, tenant=None, ttl=None):
        """A token as a developer gets one: from the command line."""
        command = [self.binary, "token", "--sub", sub, "--session-file", self.session_file]
        for scope in scopes:
            command += ["--scope", scope]
        if tenant:
            command += ["--tenant", tenant]
        if ttl:
            command += ["--ttl", ttl]
        made = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=COMMAND_SECONDS)
        assert made.returncode == 0, made
        token = made.stdout.strip()
        assert token.count(".") == 2 and "\n" not in token, "the answer is not one token"
        self.issued.append(token)
        return token

    def forged_token(self, sub, scope):
        """A token that is right in everything but its signature."""
        now = int(time.time())
        claims = {"sub": sub, "scope": scope, "aud": "emitter", "iss": "emitter-dev", "iat": now, "exp": now + 600}
        return jwt({**claims, "jti": str(uuid.uuid4())}, secrets.token_hex(32))

    def log_tail(self, lines=60):
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def assert_clean(self):
        """It ended as asked, printed JSON lines only, and no credential reached its log."""
        assert self.process.returncode == 0, f"exit code {self.process.returncode}:\n{self.log_tail()}"
        printed = list(iter(lambda: self.printed.get(timeout=COMMAND_SECONDS), None))
        log = self.log.read_text()
        for line in [*printed, *log.splitlines()]:
            assert isinstance(json.loads(line), dict), line
        for credential in [self.secret, *self.issued]:
            assert credential not in log, "a credential is in the log"
            # The signature alone is as telling as the whole token.
            assert credential.rsplit(".", 1)[-1] not in log, "a credential's end is in the log"
