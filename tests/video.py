"""The content of an MP4 file."""

import itertools

import av
import numpy as np


def read_mp4(path):
    """Return the frames (N, H, W, 3) as integers, and how long each is shown, in milliseconds.

    The last frame is in the file twice, and its second time is counted to its first.
    """
    with av.open(str(path)) as file:
        (stream,) = file.streams
        decoded = list(file.decode(stream))
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded]).astype(int)
        edges = [1000 * frame.pts * stream.time_base for frame in decoded[:-1]]
        edges.append(1000 * stream.duration * stream.time_base)
        assert file.duration == 1000 * edges[-1]
    return frames[:-1], [int(end - start) for start, end in itertools.pairwise(edges)]
