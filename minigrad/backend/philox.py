"""The counter-based generator under all random numbers: Philox4x64-10, by NumPy.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011). `minigrad.naive.philox`
has it written out.
"""

import numpy as np

Key = tuple[int, int]
Counter = tuple[int, int, int, int]

DRAWS_PER_BLOCK = 16  # of 16 bits: a block, which one count gives, is four words of 64 bits

_NO_ENTROPY = np.random.SeedSequence(0)


def philox(key: Key, counter: Counter) -> np.random.Philox:
    """NumPy's Philox at a place of the stream of `key`; the first block it makes is that of counter + 1."""
    generator = np.random.Philox(_NO_ENTROPY)  # Philox(key=...) would ask the system for entropy first
    generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": np.array(counter, np.uint64), "key": np.array(key, np.uint64)},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,  # nothing is left in the buffer
        "has_uint32": 0,
        "uinteger": 0,
    }
    return generator
