"""A real Chromium, and pages that are served to it from here."""

import json
import queue
import subprocess
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from projects import HERE, environment

# Longer than what drives it has patience.
SECONDS = 90


class Chromium:
    def __init__(self, home):
        self.log = home / "chromium.log"
        self.answers = queue.Queue()
        self.tabs = 0
        self.process = subprocess.Popen(
            ["node", HERE / "node/chromium.mjs"],
            env=environment(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put({"error": "the driver ended", "complaints": []})

    def do(self, task, **about):
        self.process.stdin.write(json.dumps({"task": task, **about}) + "\n")
        self.process.stdin.flush()
        answer = self.answers.get(timeout=SECONDS)
        assert "error" not in answer, f"{task} {about}: {answer}\n{self.log.read_text()}"
        assert answer["complaints"] == [], f"a page failed: {answer}"
        return answer["value"]

    def open(self, url):
        self.tabs += 1
        self.do("open", tab=self.tabs, url=url)
        return Tab(self, self.tabs)

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=SECONDS)
        finally:
            self.process.kill()


class Tab:
    def __init__(self, chromium, number):
        self.chromium = chromium
        self.number = number

    def tell(self, script):
        return self.chromium.do("tell", tab=self.number, script=script)

    def until(self, script, shown):
        """Waits until an expression of the page is true; a failure shows the value of another."""
        try:
            self.chromium.do("until", tab=self.number, script=script)
        except AssertionError as error:
            raise AssertionError(f"waited for {script}; there was {self.tell(shown)}") from error


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serving(directory):
    """Serves a directory's files, and gives the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield "http://{}:{}".format(*server.server_address)
        finally:
            server.shutdown()
