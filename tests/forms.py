"""Forms in which the CPU computes where it does not use the C kernels."""

import functools
from contextlib import contextmanager
from unittest import mock

import numpy as np

from minigrad import backend
from minigrad.backend.cpu.backend import CPUBackend


class Reference(backend.Backend):
    """The reference forms, on NumPy."""

    device, xp = "cpu", np


FORMS = {"numpy": functools.cache(CPUBackend), "reference": functools.cache(Reference)}


@contextmanager
def using(form):
    """Let the CPU compute by one of FORMS meanwhile."""
    with mock.patch.dict(backend._backends, cpu=FORMS[form]()):
        yield
