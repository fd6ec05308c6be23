"""Kill training before each of its file events, resume it, and compare its files with an unbroken run's.

    python tests/kills.py [--first K] [--every-nth N] [--full-for EVENTS] [--random COUNT]

The process stays ready with everything imported, and each run is a fork of it. A file event is whatever
changes a file system, as Python's audit hooks report it: opening a file to write, making, renaming, linking
and removing. Without options a run of 12 steps is killed before each of its events. With --full-for the disk
is full at so many events instead, from each one on. With --random, runs of several recipes are killed at
random moments. Prints one line of JSON.
"""

import argparse
import contextlib
import errno
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


def train(arguments, event=0, full_for=0, count_to=None, alarm=None):
    """Run the command in a fork; its exit status as os.wait gives it.

    Args:
        event: the number of the event, from 1, that does not happen any more: the process is killed.
        full_for: events that find no room, from that one on; 0 to kill the process.
        count_to: a file for the number of events.
        alarm: seconds after which the process is killed.
    """
    child = os.fork()
    if child == 0:
        _in_child(arguments, event, full_for, count_to)
    if alarm is not None:
        time.sleep(alarm)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _in_child(arguments, event, full_for, count_to):
    from dcgan import train as command
    from dcgan.errors import UserError

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
        if event <= events < event + full_for:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if events == event:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    code = 99  # of an exception that no command should end in
    try:
        code = command.main([*arguments])
    except (UserError, OSError):
        code = 2
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


def difference(expected, out, kept=""):
    """Return the names of the files that differ, among those whose names end in `kept`."""
    found = {name: content for name, content in files(out).items() if name.endswith(kept)}
    expected = {name: content for name, content in expected.items() if name.endswith(kept)}
    names = [n for n in sorted(expected.keys() | found.keys()) if expected.get(n) != found.get(n)]
    return f"other files: {', '.join(names)}" if names else ""


def sweep(first, step, full_for):
    assert train((*SWEPT, *AGAIN, "--out", "whole"), count_to="events") == 0
    whole, count = files("whole"), int(Path("events").read_text())
    wrong, stopped = {}, range(first, count + 1, step)
    for event in stopped:
        status = train((*SWEPT, *AGAIN, "--out", "run"), event, full_for)
        ended = os.waitstatus_to_exitcode(status)
        expected = (0, 2) if full_for else (-signal.SIGKILL,)
        problem = "" if ended in expected else f"exit status {ended} of the run itself"
        # Pictures and older checkpoints of steps that found no room are lost.
        kept = (".jsonl", "checkpoint.safetensors", "best.safetensors", "config.json") if full_for else ""
        problem = problem or finish(SWEPT, AGAIN, "run") or difference(whole, "run", kept)
        if problem:
            wrong[event] = problem
        shutil.rmtree("run", ignore_errors=True)
    return {"events": count, "stopped": len(stopped), "equal": len(stopped) - len(wrong), "wrong": wrong}


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
    for option, default in (("first", 1), ("every-nth", 1), ("full-for", 0), ("random", 0)):
        parser.add_argument(f"--{option}", type=int, default=default)
    arguments = parser.parse_args()
    for name in ("dcgan.train", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        importlib.import_module(name)  # so that no fork does it again

    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        images = np.random.default_rng(0).integers(0, 256, (150, 28, 28))
        np.save("d.npy", images.astype(np.uint8))
        found = (
            at_random(arguments.random)
            if arguments.random
            else sweep(arguments.first, arguments.every_nth, arguments.full_for)
        )
        print(json.dumps(found))


if __name__ == "__main__":
    main()
