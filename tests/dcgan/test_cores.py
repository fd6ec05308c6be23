"""An evaluation and an animation are the same to the last bit on any number of cores."""

import os
import subprocess
import sys
from pathlib import Path

import last_bits

ROOT = Path(__file__).parents[2]


def started(cores):
    """A process with so many cores, and as many threads for BLAS."""
    variables = {"OPENBLAS_NUM_THREADS": str(cores), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, last_bits.__file__, str(cores)],
        env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_figures_and_animations_do_not_depend_on_the_number_of_cores():
    one, two = (process.communicate()[0].splitlines() for process in [started(1), started(2)])
    assert len(one) == 4
    assert one == two
