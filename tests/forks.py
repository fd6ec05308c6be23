"""Fork again and again while other threads compute, and see that no child hangs.

    python tests/forks.py [--forks N] [--threads N] [--patience SECONDS]

Threads run convolutions, products of matrices, batch norms, gradients and steps of Adam, whose arrays come
from the arena and go back to it. Meanwhile the main thread forks. Each child does the same work, compares the
result bit for bit and exits; one that has not done so after so many seconds of patience is killed, and counts
as hung. Prints one line of JSON; the exit status is 1 if a child hung or gave another result.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
import time
import warnings

import numpy as np

import minigrad as mg
import minigrad.functional as F
from minigrad import optim


def work():
    """Train two small layers for two steps; the digest of all that comes out."""
    rng = np.random.default_rng(5)

    def leaf(*shape):
        return mg.tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=True)

    x, wide, strided = leaf(16, 16, 10, 10), leaf(16, 16, 5, 5), leaf(32, 16, 4, 4)
    gamma, beta, matrix = leaf(32), leaf(32), leaf(800, 64)
    mean, variance = mg.tensor(np.zeros(32, np.float32)), mg.tensor(np.ones(32, np.float32))
    parameters = [wide, strided, gamma, beta, matrix]
    adam = optim.Adam(parameters, 0.01)
    found = hashlib.sha256()
    for _ in range(2):
        adam.zero_grad()
        y = F.conv2d(x, wide, padding=2, epilogue=mg.Epilogue(slope=0.2))
        y = F.batch_norm(
            F.conv2d(y, strided, stride=2, padding=1), mean, variance, gamma, beta, training=True
        )
        y = F.relu(y).reshape(16, -1) @ matrix  # (16, 64)
        loss = (F.tanh(y) * y).mean()
        loss.backward()
        adam.step()
        found.update(loss.numpy().tobytes())
    for p in parameters:
        found.update(p.numpy().tobytes())
    return found.hexdigest()


def ended(child, patience):
    """Wait for a child: its exit status, or None for one that was killed since it took too long."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run(forks, threads, patience):
    """Fork so often among so many threads; how the children ended."""
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    expected, stop = work(), threading.Event()
    rounds, wrong = [0] * threads, []

    def keep_busy(number):
        while not stop.is_set():
            if work() != expected:
                wrong.append(number)
            rounds[number] += 1

    busy = [threading.Thread(target=keep_busy, args=(i,)) for i in range(threads)]
    for thread in busy:
        thread.start()
    results = []
    for _ in range(forks):
        child = os.fork()
        if child == 0:
            os._exit(0 if work() == expected else 1)
        results.append(ended(child, patience))
    stop.set()
    for thread in busy:
        thread.join()
    hung = results.count(None)
    return {
        "forks": forks,
        "hung": hung,
        "other results": forks - hung - results.count(0) + len(wrong),
        "rounds in the parent": sum(rounds),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--forks", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--patience", type=float, default=20.0)
    found = run(**vars(parser.parse_args()))
    print(json.dumps(found))
    sys.exit(bool(found["hung"] or found["other results"]))


if __name__ == "__main__":
    main()
