"""Print what an evaluation measures, to the last bit, and the digest of an MP4 file.

`python tests/last_bits.py N` does so on the first N cores.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from dcgan import animations
from dcgan.evaluation import judges, measures


def main(cores):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    rng = np.random.default_rng(0)
    # So many features, and so alike, that the last bits of products depend on the cores.
    a, b = (rng.standard_normal((450, 500)).cumsum(axis=1) for _ in range(2))
    images = rng.integers(0, 256, (30, 28, 28, 1)).astype(np.uint8)
    print("frechet", measures.frechet(a, b))
    print("kernel", measures.kernel_distance(a, b))
    print("features", hashlib.sha256(judges.FixedNetworkJudge().look(images)[0]).hexdigest())
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.mp4")
        frames = rng.integers(0, 256, (3, 320, 320, 1)).astype(np.uint8)
        animations.save_animation(list(frames), path)
        print("animation", hashlib.sha256(path.read_bytes()).hexdigest())


if __name__ == "__main__":
    main(int(sys.argv[1]))
