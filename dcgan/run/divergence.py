"""The search for the first operation of a run whose numbers are no longer finite."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minigrad import nn, observer
from minigrad.inspect import AnomalyError, detect_anomaly


class Diverged(Exception):
    """A loss is no finite number any more.

    Attributes:
        step: the first such step, from 1.
        names: of the losses.
    """

    def __init__(self, step: int, names: list[str]) -> None:
        super().__init__(f"at step {step} {', '.join(names)} is not finite")
        self.step, self.names = step, names


class _Deadline(observer.Observer):
    """Raises TimeoutError at the first operation that ends after `until`."""

    def __init__(self, until: float) -> None:
        super().__init__()
        self.until = until

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        if time.monotonic() > self.until:
            raise TimeoutError


def first_not_finite(
    networks: Mapping[str, nn.Module], steps: Callable[[], Any], seconds: float = 60.0
) -> str | None:
    """Return the place of the first number that is not finite while `steps()` trains the networks.

    Args:
        networks: by name.
        steps: does the steps again, from before it happened.
        seconds: how long to look.

    Returns None where it does not come up in that time.
    """
    try:
        with _Deadline(time.monotonic() + seconds), detect_anomaly(networks), np.errstate(all="ignore"):
            steps()
    except AnomalyError as found:
        return str(found)
    except TimeoutError:
        return None
    return None
