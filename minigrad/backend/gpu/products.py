"""Matrix products on a GPU: cuBLAS, with a handle and a workspace of our own.

CuPy's handle refuses to be captured into a graph, and lets cuBLAS look for memory as it goes. This one is
given its memory before, so that a product is a launch like any other. It is called through `ctypes`, in the
library that CuPy has loaded.
"""

import ctypes
import math
import os
import threading
from typing import Any

import numpy as np

from .. import launches
from ..arrays import Array
from ..base import Backend
from .kernels import work
from .kernels.launch import contiguous

# Names of cuBLAS's and CUDA's headers (cublas_api.h, library_types.h).
NO_TRANSPOSE, TRANSPOSE = 0, 1
FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
TYPES = {FLOAT32: 0, FLOAT64: 1}  # CUDA_R_32F, CUDA_R_64F
COMPUTE = {FLOAT32: 68, FLOAT64: 70}  # CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F
COMPUTE_TF32 = 77  # CUBLAS_COMPUTE_32F_FAST_TF32
DEFAULT_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT
STATUS = {1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 13: "EXECUTION_FAILED"}
WORKSPACE = 32 << 20  # bytes; NVIDIA's documentation names this size for Hopper, and 4 MiB for earlier cards

# The factors of a product and of what is there before it, 1 and 0, at addresses of the host.
_FACTORS = {
    dtype: (ctypes.byref(scalar(1)), ctypes.byref(scalar(0)))
    for dtype, scalar in ((FLOAT32, ctypes.c_float), (FLOAT64, ctypes.c_double))
}
_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
_SIGNATURES = {
    "cublasCreate_v2": [_POINTER],
    "cublasSetStream_v2": [_POINTER, _POINTER],
    "cublasSetWorkspace_v2": [_POINTER, _POINTER, ctypes.c_size_t],
    # handle, transa, transb, m, n, k, alpha, A, type, lda, B, type, ldb,
    # beta, C, type, ldc, compute, algorithm
    "cublasGemmEx": [
        *(_POINTER, _INT, _INT, _INT, _INT, _INT, _POINTER, _POINTER, _INT, _INT, _POINTER, _INT, _INT),
        *(_POINTER, _POINTER, _INT, _INT, _INT, _INT),
    ],
    # the same, with the stride of each matrix after its leading dimension, and the count of products
    "cublasGemmStridedBatchedEx": [
        *(_POINTER, _INT, _INT, _INT, _INT, _INT, _POINTER, _POINTER, _INT, _INT, _LONG),
        *(_POINTER, _INT, _INT, _LONG, _POINTER, _POINTER, _INT, _INT, _LONG, _INT, _INT, _INT),
    ],
}


class GPUProducts(Backend):
    """The products of `GPUBackend`."""

    def __init__(self) -> None:
        self._library = _library(self.xp)
        self._handles = threading.local()  # a handle belongs to one thread and one device
        self._tf32 = False

    def allow_tf32(self, allowed: bool) -> None:
        self._tf32 = bool(allowed)

    @property
    def allows_tf32(self) -> bool:
        """Whether products of float32 may round their factors to TensorFloat-32."""
        return self._tf32

    def matmul(self, a: Array, b: Array) -> Array:
        if a.dtype != b.dtype or a.dtype not in TYPES or not a.ndim or not b.ndim:
            return self.xp.matmul(a, b)  # integers, by a kernel of CuPy's; and its errors
        left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        if left.shape[-1] != right.shape[-2]:
            return self.xp.matmul(a, b)  # raises
        y = self._product(left, right)
        y = y[..., 0, :] if a.ndim == 1 else y
        return y[..., 0] if b.ndim == 1 else y

    def _product(self, a: Array, b: Array) -> Array:
        """The product of matrices, or of batches of matrices, which are broadcast."""
        batch = self.xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        y = self.xp.empty((*batch, a.shape[-2], b.shape[-1]), a.dtype)
        if not y.size:
            return y
        if not a.shape[-1]:
            y.fill(0)
            return y
        if not batch:
            self._multiply(a, b, y)
            return y
        a, b = (contiguous(self.xp.broadcast_to(x, (*batch, *x.shape[-2:]))) for x in (a, b))
        a, b, flat = (x.reshape(-1, *x.shape[-2:]) for x in (a, b, y))  # (batch, rows, columns) each
        self._multiply(a, b, flat)
        return y

    def _multiply(self, a: Array, b: Array, y: Array) -> None:
        """y = a @ b, y being contiguous: matrices, or as many of them in a, b and y.

        cuBLAS has matrices column by column: what lies in memory as y is y transposed to it, which is
        b transposed times a transposed.
        """
        dtype = a.dtype
        (b, b_form, b_leading), (a, a_form, a_leading) = _laid_out(b), _laid_out(a)
        rows, columns, inner = y.shape[-2], y.shape[-1], a.shape[-1]
        one, zero = _FACTORS[dtype]
        kind = TYPES[dtype]
        compute = COMPUTE_TF32 if self._tf32 and dtype == FLOAT32 else COMPUTE[dtype]
        head = (self._handle(), b_form, a_form, columns, rows, inner, one)
        of_b, of_a = (b.data.ptr, kind, b_leading), (a.data.ptr, kind, a_leading)
        of_y = (y.data.ptr, kind, columns)
        tail = (compute, DEFAULT_ALGORITHM)
        if y.ndim == 2:
            self._call("cublasGemmEx", *head, *of_b, *of_a, zero, *of_y, *tail)
        else:
            steps = [math.prod(x.shape[1:]) for x in (b, a, y)]  # from one matrix to the next
            middle = (*of_b, steps[0], *of_a, steps[1], zero, *of_y, steps[2], len(y))
            self._call("cublasGemmStridedBatchedEx", *head, *middle, *tail)
        if launches.listeners:
            launches.notify(work.of_product(a, b, y))

    def workspace(self) -> Any:
        """Return the memory that products of this thread work in; a graph of them holds its address."""
        self._handle()
        return self._handles.by_device[self.xp.cuda.runtime.getDevice()][2]

    def _handle(self) -> Any:
        """The handle of this thread and device, on the current stream, with its workspace."""
        own, device = self._handles, self.xp.cuda.runtime.getDevice()
        by_device = own.__dict__.setdefault("by_device", {})
        if device not in by_device:
            handle, memory = ctypes.c_void_p(), self.xp.cuda.Memory(WORKSPACE)
            self._call("cublasCreate_v2", ctypes.byref(handle))
            by_device[device] = [handle, None, memory]
        entry = by_device[device]
        handle, stream, workspace = entry
        current = self.xp.cuda.get_current_stream().ptr
        if stream != current:  # this takes the workspace away
            self._call("cublasSetStream_v2", handle, current)
            self._call("cublasSetWorkspace_v2", handle, workspace.ptr, WORKSPACE)
            entry[1] = current
        return handle

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            raise RuntimeError(f"{name}: cuBLAS says {STATUS.get(status, status)}")


def _laid_out(x: Array) -> tuple[Array, int, int]:
    """x (..., rows, columns) in a memory order that cuBLAS takes, a copy only if it must be.

    Returns it, whether cuBLAS is to transpose it, and the distance of its rows (or columns) in elements.
    """
    along_rows, along_columns = (stride // x.itemsize for stride in x.strides[-2:])
    rows, columns = x.shape[-2:]
    whole = x.ndim == 2 or x.flags.c_contiguous
    if whole and (along_columns == 1 or columns == 1) and (along_rows >= columns or rows == 1):
        return x, NO_TRANSPOSE, max(along_rows if rows > 1 else columns, 1)
    if whole and (along_rows == 1 or rows == 1) and (along_columns >= rows or columns == 1):
        return x, TRANSPOSE, max(along_columns if columns > 1 else rows, 1)
    return _laid_out(contiguous(x))


def _library(xp: Any) -> Any:
    """The cuBLAS that CuPy uses, with the types of the arguments that are passed to it."""
    # A library that was loaded gives its own functions and those of the libraries that it was linked with.
    library = ctypes.CDLL(_windows_name(xp) if os.name == "nt" else xp.cuda.cublas.__file__)
    for name, types in _SIGNATURES.items():
        getattr(library, name).argtypes = types
    return library


def _windows_name(xp: Any) -> str:
    """On Windows only the library itself gives its functions."""
    return f"cublas64_{xp.cuda.runtime.runtimeGetVersion() // 1000}.dll"
