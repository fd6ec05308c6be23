"""Runs that are killed, or find no room, at any moment: whatever is resumed equals an unbroken run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "kills.py"


def stopped(*options):
    """Return what the program finds in a process of its own: forks of this one would inherit threads."""
    done = subprocess.run(
        [sys.executable, PROGRAM, *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2])
def test_a_run_killed_before_any_of_its_file_events_equals_an_unbroken_one(first):
    found = stopped(f"--first={first}", "--every-nth=2")
    assert found["wrong"] == {}
    assert found["equal"] > 70


@pytest.mark.slow
@pytest.mark.parametrize("events", [1, 20])
def test_a_run_that_finds_no_room_for_a_while_can_be_resumed(events):
    found = stopped(f"--full-for={events}", "--every-nth=9")
    assert found["wrong"] == {}
    assert found["equal"] > 15


@pytest.mark.slow
def test_runs_killed_at_random_moments_equal_unbroken_ones():
    found = stopped("--random=9")
    assert found["wrong"] == {}
    assert found["killed"] > 4
