"""How long each frame of an animation is shown, and which frames are left out where time is short.

Times are whole hundredths of a second, since a GIF counts in them.
"""

import numpy as np

TICK = 10  # milliseconds
# Ticks that a frame is shown for at the least: browsers show a shorter one of a GIF for 100 ms.
SHORTEST = 2
HELD = 200  # ticks of the last frame, at the most
USUAL = 800  # ticks of an animation that nobody gave a time for
COMFORTABLE = (4, 50)  # ticks of a frame of such an animation, at the least and at the most
MIN_SECONDS, MAX_SECONDS = 0.1, 600.0  # no frame of a GIF is shown for more than 655 seconds


def most_frames(seconds: float) -> int:
    """Return how many frames can be shown in `seconds`, from MIN_SECONDS on: none for less than 20 ms."""
    total = _ticks(seconds)
    return 1 + (total - _held(total)) // SHORTEST


def spread(count: int, most: int) -> list[int]:
    """Return the places of at most `most` of `count` frames, evenly apart, the first and the last included.

    `most` is at least 2.
    """
    return [int(place) for place in np.linspace(0, count - 1, min(count, most)).round()]


def lasting(count: int, seconds: float) -> list[int]:
    """Return the milliseconds of each of `count` frames, which last `seconds` in all, to 10 ms.

    The last one stays for a quarter of the time, and for two seconds at the most; or as long as the others,
    where these stay longer. `count` is at most what `most_frames` says.
    """
    total = _ticks(seconds)
    return _shared(count, total, max(_held(total), -(-total // count)))


def comfortable(count: int) -> list[int]:
    """Return the milliseconds of each of `count` frames, about 8 seconds in all.

    A frame is shown for 40 ms at least and half a second at most, so that many last longer and few shorter.
    The last one stays for two seconds.
    """
    least, most = (HELD + (count - 1) * ticks for ticks in COMFORTABLE)
    return _shared(count, min(max(USUAL, least), most), HELD)


def steady(count: int, pace: int) -> list[int]:
    """Return `pace`, in milliseconds, for each of `count` frames, and two seconds for the last one."""
    return [*[pace] * (count - 1), HELD * TICK]


def _ticks(seconds: float) -> int:
    return round(seconds * 1000 / TICK)


def _held(total: int) -> int:
    """Return the ticks of the last frame, of `total`."""
    return max(SHORTEST, min(HELD, total // 4))


def _shared(count: int, total: int, held: int) -> list[int]:
    """Return `total` ticks in milliseconds: `held` for the last frame, the others alike to a tick."""
    if count == 1:
        return [total * TICK]
    edges = [(total - held) * place // (count - 1) for place in range(count)]
    return [TICK * (end - start) for start, end in zip(edges, [*edges[1:], total], strict=True)]
