"""Somebody's terminals: programs are started in them as by hand, and watched until they have said what is awaited."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from contract import checked
from server import ROOT

# How long anything may take that ought to be immediate.
SECONDS = 60
# The secret of a config that a test writes.
CONFIG_SECRET = "correct horse battery staple, thrice"
# Every listener on any free port.
ANY_PORTS = [f"--{name}-listen=127.0.0.1:0" for name in ("grpc", "http", "admin")]


class Program:
    """A running program, and every line that it has printed so far."""

    def __init__(self, command, environment, directory):
        self.out = []
        self.err = []
        self.news = threading.Condition()
        self.command = command
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A group of its own, so that what a shell starts ends with it.
            start_new_session=True,
        )
        pipes = [(self.process.stdout, self.out), (self.process.stderr, self.err)]
        self.readers = [threading.Thread(target=self._read, args=pipe, daemon=True) for pipe in pipes]
        for reader in self.readers:
            reader.start()

    def _read(self, pipe, lines):
        for line in pipe:
            with self.news:
                lines.append(line.rstrip("\n"))
                self.news.notify_all()
        with self.news:
            self.news.notify_all()

    def __repr__(self):
        out, err = ("\n".join(lines) for lines in (self.out, self.err))
        return f"{self.command}\n-- printed:\n{out}\n-- and on stderr:\n{err}\n-- ended with {self.process.poll()}"

    def until(self, what, condition, seconds=SECONDS):
        """Waits until the condition, asked after each line, gives something, and returns it."""
        with self.news:
            self.news.wait_for(lambda: condition() or not self._prints(), timeout=seconds)
            found = condition()
        assert found, f"waited for {what}: {self!r}"
        return found

    def _prints(self):
        return any(reader.is_alive() and reader is not threading.current_thread() for reader in self.readers)

    def write(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def ended(self, seconds=SECONDS):
        """Waits for the end, and returns the exit code."""
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {seconds} s: {self!r}") from None
        for reader in self.readers:
            reader.join(timeout=SECONDS)
        return code

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def kill(self):
        self.process.kill()
        self.ended()

    def close(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.ended()

    @property
    def frames(self):
        """What it has printed, JSON lines, less the control frames."""
        frames = [checked(json.loads(line)) for line in list(self.out)]
        return [frame for frame in frames if not frame["type"].startswith("connection_")]


class Shell:
    """The terminals of one user: a home, and nothing else in the environment."""

    def __init__(self, directory):
        self.emitter = str(Path(os.environ.get("EMITTER_BIN") or ROOT / "target/debug/emitter").absolute())
        self.directory = directory
        self.environment = {
            "HOME": str(directory / "home"),
            "XDG_RUNTIME_DIR": str(directory / "run"),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "PATH": os.pathsep.join([str(ROOT / ".tools/bin"), str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        }
        for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
            Path(self.environment[name]).mkdir()
        self.programs = []
        self.secrets = []

    def start(self, *command, **variables):
        """Starts a program; `emitter` is the one under test."""
        command = [self.emitter if word == "emitter" else str(word) for word in command]
        program = Program(command, {**self.environment, **variables}, self.directory)
        self.programs.append(program)
        return program

    def run(self, *command, stdin="", exits=0, **variables):
        """Runs a program to its end, which is with that exit code."""
        program = self.start(*command, **variables)
        try:
            program.process.stdin.write(stdin)
            program.process.stdin.close()
        except BrokenPipeError:
            pass
        code = program.ended()
        assert code == exits, f"exit code {code}, not {exits}: {program!r}"
        return program

    def paste(self, text, exits=0):
        """Pastes lines into a fresh shell."""
        return self.run("sh", stdin=text, exits=exits)

    def dev(self, *flags, ports=ANY_PORTS, **variables):
        """A service for development; returned once it listens."""
        return Dev(self, self.start("emitter", "dev", "--json", *ports, *flags, **variables))

    def tail(self, *flags):
        return self.start("emitter", "tail", "--json", *flags)

    def keeps(self, secret):
        """From here on, no program may print this."""
        self.secrets.append(secret)
        return secret

    def close(self):
        for program in self.programs:
            program.close()
        for program in self.programs:
            said = "\n".join(program.out + program.err)
            assert not any(secret in said for secret in self.secrets), f"a secret was printed: {program.command}"


class Dev:
    def __init__(self, shell, program):
        self.program = program
        listening = json.loads(program.until("where it listens", lambda: program.out)[0])
        assert listening.pop("type") == "listening", program
        self.grpc, self.http, self.admin = (listening[name] for name in ("grpc", "http", "admin"))
        session = shell.directory / "run/emitter/session.json"
        shell.keeps(json.loads(session.read_text())["secret"])


def lasting_ports():
    """Flags for free ports that stay free while the service is away: no outgoing connection gets one of these."""
    ports = []
    for port in random.sample(range(30240, 32768), 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                ports.append(port)
    return [f"--{name}-listen=127.0.0.1:{port}" for name, port in zip(("grpc", "http", "admin"), ports)]
