"""The content of an MP4 file."""

import av
import numpy as np


def read_mp4(path):
    """Return the frames (N, H, W, 3) as integers, and how many are shown a second."""
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        return np.stack(frames).astype(int), file.streams.video[0].average_rate
