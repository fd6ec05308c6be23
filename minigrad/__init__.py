"""minigrad: a neural-network engine on NumPy, made to be read.

Tensors with gradients of any order, layers, losses and optimisers. `import minigrad as mg`.
"""

from . import functional, nn, optim, random
from .backend import set_default as set_default_device
from .backend import set_num_threads
from .backend.epilogue import Epilogue
from .backend.tape import CaptureError, each_time
from .backpropagate import grad
from .capturing import capture

# `gradcheck` and `tensor` are modules as well as functions. A module becomes an attribute of its package
# when it is first loaded, which is before the lines below bind the names: after them they are the functions.
from .creation import from_host, tensor
from .functional import concatenate, maximum, pad, stack, where
from .gradcheck import GradcheckError, gradcheck
from .ops import Operation
from .random import Generator, manual_seed
from .serialize import load, load_metadata, save
from .tensor import Tensor, enable_grad, is_grad_enabled, no_grad

__version__ = "0.1.0"

__all__ = [
    "CaptureError",
    "Epilogue",
    "Generator",
    "GradcheckError",
    "Operation",
    "Tensor",
    "capture",
    "concatenate",
    "each_time",
    "enable_grad",
    "from_host",
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
    "set_default_device",
    "set_num_threads",
    "stack",
    "tensor",
    "where",
]
