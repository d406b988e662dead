"""That buf's checks of the contract can fail. That they pass is a part of `make lint`."""

import shutil
import subprocess

import pytest

from server import ROOT

BASELINE = ROOT / "proto/baseline.binpb"
# Buf's exit code when it found something, in contrast to when it could not look.
FOUND = 100


def buf(directory, *arguments):
    return subprocess.run(["buf", *arguments], cwd=directory, capture_output=True, text=True, timeout=120)


def breaking(directory):
    return buf(directory, "breaking", "--against", str(BASELINE))


@pytest.fixture
def changed(tmp_path):
    """A copy of the contract in which one passage of event.proto reads otherwise."""
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    event = tmp_path / "proto/emitter/v1/event.proto"

    def change(old, new):
        text = event.read_text()
        assert text.count(old) == 1, f"{old!r} is not once in event.proto: this test needs another passage"
        event.write_text(text.replace(old, new))
        return tmp_path

    return change


def test_lint_refuses_a_badly_named_field(changed):
    found = buf(changed("string user_id = 3;", "string userId = 3;"), "lint")
    assert found.returncode == FOUND, found
    assert "userId" in found.stdout


def test_a_renamed_field_breaks(changed):
    found = breaking(changed("string user_id = 3;", "string owner_id = 3;"))
    assert found.returncode == FOUND, found
    assert '"user_id"' in found.stdout and '"owner_id"' in found.stdout, found.stdout


def test_a_removed_field_breaks(changed):
    found = breaking(changed("string user_id = 3;", ""))
    assert found.returncode == FOUND, found
    assert '"user_id"' in found.stdout, found.stdout


def test_a_changed_type_breaks(changed):
    found = breaking(changed("string user_id = 3;", "uint64 user_id = 3;"))
    assert found.returncode == FOUND, found
    assert '"user_id"' in found.stdout, found.stdout


def test_an_added_field_breaks_nothing(changed):
    found = breaking(changed("string user_id = 3;", "string user_id = 3;\n  string user_nickname = 900;"))
    assert found.returncode == 0, found.stdout + found.stderr
