"""Rows and a vector of channels, in long runs: the same numbers as by broadcasting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigrad.backend.cpu import runs
from minigrad.backend.cpu.runs import Channels


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 50), st.integers(1, 9), st.integers(1, 40), st.sampled_from(["float32", "float64"]),
    st.sampled_from([np.add, np.subtract, np.multiply]), st.booleans(),
)  # fmt: skip
def test_any_number_of_rows_and_channels(rows, channels, run, dtype, operation, in_place):
    rng = np.random.default_rng(0)
    x, vector = rng.standard_normal((rows, channels)).astype(dtype), rng.standard_normal(channels)
    expected = operation(x, vector.astype(dtype))
    out = x if in_place else np.full_like(x, np.nan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "RUN", run)
        result = Channels(vector.astype(dtype)).apply(operation, x, out)
    assert result is out
    assert out.dtype == dtype
    assert np.array_equal(out, expected)


@pytest.mark.parametrize(("channels", "times"), [(32, 256), (8191, 1), (8192, 1), (10**5, 1)])
def test_a_vector_is_repeated_up_to_the_length_of_a_run(channels, times):
    vector = np.arange(channels, dtype="float32")
    found = Channels(vector)
    assert found.times == times
    assert np.array_equal(found.repeated.reshape(times, channels), np.broadcast_to(vector, (times, channels)))
