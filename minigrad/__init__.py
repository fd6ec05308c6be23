"""minigrad: a neural-network engine on NumPy, made to be read.

Tensors with gradients of any order, layers, losses and optimisers. `import minigrad as mg`.
"""

from . import functional, gradcheck, nn, optim, random, tensor
from .functional import concatenate, maximum, pad, stack, where
from .ops import Operation
from .random import Generator, manual_seed
from .serialize import load, load_metadata, save

# The modules of these names are imported above, so that from here on the names are the functions.
from .gradcheck import GradcheckError, gradcheck  # isort: skip
from .tensor import Tensor, enable_grad, grad, is_grad_enabled, no_grad, tensor  # isort: skip

__version__ = "0.1.0"

__all__ = [
    "Generator",
    "GradcheckError",
    "Operation",
    "Tensor",
    "concatenate",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "is_grad_enabled",
    "load",
    "load_metadata",
    "manual_seed",
    "maximum",
    "nn",
    "no_grad",
    "optim",
    "pad",
    "random",
    "save",
    "stack",
    "tensor",
    "where",
]
