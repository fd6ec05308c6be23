"""Damaged files, by the thousand: see fuzz.py. `pytest -m slow` reads 10,000 of each kind."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import fuzz
import pytest

MEMORY = 2**32  # bytes of addresses that a reader may use, all libraries included
GROWN = 1024  # MiB that it may touch


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_damaged_files_are_read_or_refused(kind, tmp_path):
    found = fuzz.run(kind, 25, 0, tmp_path)
    assert found.defects == []
    assert 0 < found.refused <= found.count


def test_the_harness_finds_what_it_looks_for(tmp_path, monkeypatch):
    def raises(path):
        raise KeyError("a")

    def writes(path):
        (path.parent / "new").write_bytes(b"")
        (path.parent / "new").unlink()

    for read, words in ((raises, "KeyError"), (writes, "touched open")):
        monkeypatch.setitem(fuzz.KINDS, "bad", fuzz.Kind("a", lambda: [b"0"], read, (ValueError,)))
        assert any(words in defect for defect in fuzz.run("bad", 1, 0, tmp_path).defects)


@pytest.mark.slow
@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_ten_thousand_damaged_files_are_read_or_refused(kind):
    root = str(Path(fuzz.__file__).parents[1])
    found = json.loads(
        subprocess.run(
            [sys.executable, fuzz.__file__, kind, "10000", "1"],
            env={**os.environ, "PYTHONPATH": root, "OPENBLAS_NUM_THREADS": "2"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
            capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    print(kind, found)
    assert found["defects"] == []
    assert found["grown"] < GROWN
