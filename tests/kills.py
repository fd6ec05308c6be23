"""Kill training before each of its file events, resume it, and compare its files with an unbroken run's.

    python tests/kills.py [--every-nth N] [--random COUNT]

The process stays ready with everything imported, and each run is a fork of it. A file event is whatever
changes a file system, as Python's audit hooks report it: opening a file to write, making, renaming, linking
and removing. Without arguments a run of 12 steps is killed before each of its events; with --random, runs of
several recipes are killed at random moments. Prints one line of JSON.
"""

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

EVENTS = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "open"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SWEPT = (
    "--preset", "quick", "--batch-size", "8", "--data", "d.npy", "--steps", "12",
    "--set", "grid_rows=2", "--set", "grid_columns=2", "--set", "frame_every=4", "--set", "sample_every=6",
)  # fmt: skip
AGAIN = ("--every", "4", "--checkpoint-every", "2", "--vitals-every", "3")  # given with --resume too
TINY = ("--set", "grid_rows=2", "--set", "grid_columns=2", "--data", "d.npy", "--batch-size", "8")
RECIPES = (
    ("--preset", "quick", *TINY, "--steps", "40"),
    ("--preset", "flux", *TINY, "--steps", "12", "--set", "sample_every=5"),
    ("--preset", "flowers", *TINY, "--steps", "24", "--set", "ngf=2", "--set", "ndf=2"),
)
SCHEDULES = (("--checkpoint-every", "3"), ("--checkpoint-every", "5", "--keep", "1"), ("--every", "6"))


def train(arguments, kill_before=None, count_to=None, alarm=None):
    """Run the command in a fork; its exit status as os.wait gives it.

    Args:
        kill_before: the number of the event, from 1, that does not happen any more.
        count_to: a file for the number of events.
        alarm: seconds after which the process is killed.
    """
    child = os.fork()
    if child == 0:
        _in_child(arguments, kill_before, count_to)
    if alarm is not None:
        time.sleep(alarm)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _in_child(arguments, kill_before, count_to):
    from dcgan import train as command

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    events = 0

    def hook(name, details):
        nonlocal events
        reads = name == "open" and not (isinstance(details[2], int) and details[2] & WRITING)
        elsewhere = any(part in str(details[0]) for part in ("/dev/", "__pycache__", ".cache"))
        if name not in EVENTS or reads or elsewhere:
            return
        events += 1
        if events == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    code = 99
    try:
        code = command.main([*arguments])
    finally:
        if count_to is not None:
            Path(count_to).write_text(str(events))
        os._exit(code)


def files(directory):
    """The content of all files of a run but timing.jsonl, by their names."""
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in sorted(Path(directory).rglob("*"))
        if p.is_file() and p.name != "timing.jsonl"
    }


def finish(start, again, out):
    """Resume a run that was killed; begin it again if it had no recipe in its directory yet."""
    begun = (Path(out) / "config.json").exists()
    status = train(("--resume", out, *again) if begun else (*start, *again, "--out", out))
    return "" if status == 0 else f"exit status {os.waitstatus_to_exitcode(status)}"


def difference(expected, out):
    found = files(out)
    names = [n for n in sorted(expected.keys() | found.keys()) if expected.get(n) != found.get(n)]
    return f"other files: {', '.join(names)}" if names else ""


def sweep(step):
    assert train((*SWEPT, *AGAIN, "--out", "whole"), count_to="events") == 0
    whole, count = files("whole"), int(Path("events").read_text())
    wrong, killed = {}, range(1, count + 1, step)
    for event in killed:
        train((*SWEPT, *AGAIN, "--out", "run"), kill_before=event)
        problem = finish(SWEPT, AGAIN, "run") or difference(whole, "run")
        if problem:
            wrong[event] = problem
        shutil.rmtree("run")
    return {"events": count, "killed": len(killed), "equal": len(killed) - len(wrong), "wrong": wrong}


def at_random(count):
    draw, wrong, killed = random.Random(0), {}, 0
    wholes, seconds = {}, {}
    for number in range(count):
        start, again = RECIPES[number % len(RECIPES)], SCHEDULES[number // len(RECIPES) % len(SCHEDULES)]
        if (start, again) not in wholes:
            began = time.monotonic()
            assert train((*start, *again, "--out", "whole")) == 0
            seconds[start, again] = time.monotonic() - began
            wholes[start, again] = files("whole")
            shutil.rmtree("whole")
        status = train((*start, *again, "--out", "run"), alarm=draw.uniform(0, seconds[start, again]))
        for _ in range(draw.randrange(3)):  # and perhaps while it is resumed
            if not (Path("run") / "config.json").exists():
                break
            train(("--resume", "run", *again), alarm=draw.uniform(0, seconds[start, again]))
        killed += os.WIFSIGNALED(status)
        problem = finish(start, again, "run") or difference(wholes[start, again], "run")
        if problem:
            wrong[number] = problem
        shutil.rmtree("run")
    return {"runs": count, "killed": killed, "equal": count - len(wrong), "wrong": wrong}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--every-nth", type=int, default=1)
    parser.add_argument("--random", type=int, default=0)
    arguments = parser.parse_args()
    for name in ("dcgan.train", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        importlib.import_module(name)  # so that no fork does it again

    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        images = np.random.default_rng(0).integers(0, 256, (150, 28, 28))
        np.save("d.npy", images.astype(np.uint8))
        print(json.dumps(at_random(arguments.random) if arguments.random else sweep(arguments.every_nth)))


if __name__ == "__main__":
    main()
