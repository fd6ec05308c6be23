"""How far a result may be from its oracle: the one table, and the one measure."""

import numpy as np

# |result - oracle| / |oracle|, in norms, against an oracle in float64 on the same inputs.
ACCURACY = {"float32": 1e-6, "float64": 1e-10}


def assert_close(result, oracle, dtype="float64"):
    """`result` has the oracle's shape and is as near to it as the dtype allows."""
    oracle = np.asarray(oracle, np.float64)
    assert result.shape == oracle.shape
    assert str(result.dtype) == dtype
    error = np.linalg.norm(np.asarray(result, np.float64) - oracle) / max(np.linalg.norm(oracle), 1e-30)
    if not np.any(oracle):
        error = np.abs(result).max(initial=0.0)
    assert error <= ACCURACY[dtype], f"relative error {error:.3g}, allowed {ACCURACY[dtype]:g}"
