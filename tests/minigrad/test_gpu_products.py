"""Matrix products on a GPU: cuBLAS against NumPy, for any shapes and memory orders."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigrad import backend

pytestmark = pytest.mark.gpu

# The two fixtures hold for all examples of a test.
QUICK = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
FLOATS = pytest.mark.parametrize("dtype", ["float32", "float64"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
COMPUTE_FLOAT32, COMPUTE_FLOAT64, COMPUTE_TF32 = 68, 70, 77  # cublas_api.h, cublasComputeType_t
SUCCESS, ALLOC_FAILED = 0, 3  # cublasStatus_t


@pytest.fixture
def gpu():
    return backend.get("gpu")


@pytest.fixture(autouse=True)
def poisoned(gpu):
    """Every new array starts as NaN, integers as -1: nothing may be read before it is written."""
    cuda = gpu.xp.cuda

    def allocate(size):
        pointer = cuda.MemoryPointer(cuda.Memory(max(size, 1)), 0)
        pointer.memset(0xFF, max(size, 1))
        return pointer

    with cuda.using_allocator(allocate):
        yield


@pytest.fixture
def calls(gpu, monkeypatch):
    """The calls of cuBLAS: names and arguments."""
    seen, call = [], gpu._call
    monkeypatch.setattr(gpu, "_call", lambda name, *args: (seen.append((name, args)), call(name, *args)))
    return seen


def assert_leading_dimensions_fit(calls):
    """cuBLAS refuses less than the rows of each matrix, as it lies column by column, and less than 1."""
    for name, args in calls:
        if not name.startswith("cublasGemm"):
            continue
        transposed, (m, n, k), at = (
            args[1:3],
            args[3:6],
            (9, 12, 16) if name == "cublasGemmEx" else (9, 13, 18),
        )
        least = (k if transposed[0] else m, n if transposed[1] else k, m)
        assert all(args[i] >= max(1, rows) for i, rows in zip(at, least, strict=True))


# -- shapes and memory orders ---------------------------------------------------------------------------

sizes = st.integers(0, 4)


@st.composite
def shapes(draw):
    """The shapes of two factors that fit: with 1 to 4 axes each, those of the batches broadcast."""
    n, k, m = draw(sizes), draw(sizes), draw(sizes)
    batch = draw(st.lists(st.integers(0, 3), max_size=2))
    of_each = []
    for matrix in ((n, k), (k, m)):
        axes = batch[draw(st.integers(0, len(batch))) :]
        of_each.append((*(draw(st.sampled_from([size, 1])) for size in axes), *matrix))
    if draw(st.integers(0, 4)) == 0:
        of_each[0] = (k,)
    if draw(st.integers(0, 4)) == 0:
        of_each[1] = (k,)
    return tuple(of_each)


@st.composite
def layouts(draw, shape):
    """How an array lies in memory: the order of its axes, steps along them, and axes that are stretched."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 1, 2, -1, -2])) for _ in shape]
    stretched = [draw(st.integers(0, 7)) == 0 for _ in shape]
    return order, steps, stretched


def laid_out(gpu, seed, shape, layout, dtype):
    """An array of small integers on the host, and the same on the device, in memory like that.

    The gaps between its elements hold NaN, or a large integer. Products of the elements are exact.
    """
    order, steps, stretched = layout
    held = [1 if s else n for n, s in zip(shape, stretched, strict=True)]
    room = np.full([held[i] * abs(steps[i]) for i in order], np.nan if dtype[0] == "f" else 10**6, dtype)

    def seen(array, xp):
        view = array.transpose(np.argsort(order).tolist())[tuple(slice(None, None, step) for step in steps)]
        return xp.broadcast_to(view, shape)

    part = room.transpose(np.argsort(order).tolist())[tuple(slice(None, None, step) for step in steps)]
    part[...] = np.random.default_rng(seed).integers(-8, 9, held)
    return seen(room, np), seen(gpu.xp.asarray(room), gpu.xp)


@FLOATS
@QUICK
@given(data=st.data())
def test_products_are_numpys(gpu, calls, data, dtype):
    del calls[:]
    both = data.draw(shapes())
    arrays = [laid_out(gpu, i, shape, data.draw(layouts(shape)), dtype) for i, shape in enumerate(both)]
    (a, a_there), (b, b_there) = arrays
    before = [array.get() for array in (a_there, b_there)]
    found, expected = gpu.matmul(a_there, b_there), np.matmul(a, b)
    assert gpu.owns(found)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(found.get(), expected)
    assert_leading_dimensions_fit(calls)
    for array, values in zip((a_there, b_there), before, strict=True):
        assert np.array_equal(array.get(), values)


@pytest.mark.parametrize(
    "both", [((2, 3), (3, 4)), ((3,), (3,)), ((2, 1, 2, 3), (5, 3, 1)), ((2, 0), (0, 2))], ids=str
)
def test_products_of_integers_are_numpys(gpu, both):
    a, b = (np.random.default_rng(i).integers(-(2**40), 2**40, shape) for i, shape in enumerate(both))
    found, expected = gpu.matmul(gpu.xp.asarray(a)[..., ::-1], gpu.xp.asarray(b)), a[..., ::-1] @ b
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(found.get(), expected)  # modulo 2^64


@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool"])
@pytest.mark.parametrize(
    "both", [((3, 4), (2, 4)), ((1, 1), (1, 1)), ((0, 4), (2, 4)), ((3, 0), (2, 0))], ids=str
)
def test_dense_layers_of_any_dtype(gpu, both, dtype, biased):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.integers(-8, 9, shape).astype(dtype) for shape in (*both, (2 * both[1][0],)))
    given = gpu.xp.asarray(bias)[::2] if biased else None  # every other number
    found = gpu.dense(gpu.xp.asarray(x), gpu.xp.asarray(weight), given)
    expected = x @ weight.T + bias[::2] if biased else x @ weight.T
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(found.get(), expected)


@FLOATS
@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 65, 17), (1, 257, 3), (129, 1, 31), (64, 64, 64)], ids=str)
def test_products_of_larger_matrices(gpu, shape, dtype):
    n, k, m = shape
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-8, 9, size).astype(dtype) for size in ((3, n, k), (3, k, m)))
    for left, right in itertools.product((a, a[0], a[:1]), (b, b[0])):
        for turned in (False, True):
            given = [gpu.xp.asarray(x) for x in (left, right)]
            if turned:  # each matrix column by column
                given = [x.swapaxes(-1, -2).copy().swapaxes(-1, -2) for x in given]
            assert np.array_equal(gpu.matmul(*given).get(), left @ right)


@FLOATS
def test_matrices_as_they_lie_are_not_copied(gpu, calls, dtype):
    """Rows or columns side by side, with gaps between them too: cuBLAS gets the addresses of the arrays."""
    a = gpu.xp.asarray(np.arange(60.0, dtype=dtype).reshape(6, 10))
    for left in (a, a.T, a[1:, 2:7], a[::2], a[:, 3:].T, a[:1], a[:, :1]):
        right = gpu.xp.asarray(np.ones((left.shape[1], 3), dtype))
        del calls[:]
        assert np.array_equal(gpu.matmul(left, right).get(), left.get() @ right.get())
        (name, args) = calls[-1]
        assert name == "cublasGemmEx"
        assert (args[7], args[10]) == (right.data.ptr, left.data.ptr)  # the second comes first


FAULTS = [
    ((2, 3), (2, 3)),
    ((3,), (2,)),
    ((2, 3), (2,)),
    ((2,), (3, 2)),
    ((2, 2, 3), (3, 3, 2)),
    ((), (3,)),
    ((3,), ()),
]


@DTYPES
@pytest.mark.parametrize("both", FAULTS, ids=str)
def test_what_numpy_refuses_is_refused(gpu, both, dtype):
    a, b = (np.ones(shape, dtype) for shape in both)
    with pytest.raises(ValueError) as expected:
        np.matmul(a, b)
    with pytest.raises(type(expected.value)):
        gpu.matmul(gpu.xp.asarray(a), gpu.xp.asarray(b))


@pytest.mark.parametrize(
    "dtypes", [("float32", "float64"), ("int64", "float64"), ("int32", "int64")], ids=str
)
def test_factors_of_two_dtypes_give_numpys(gpu, dtypes):
    a, b = np.arange(6).reshape(2, 3).astype(dtypes[0]), np.arange(12).reshape(3, 4).astype(dtypes[1])
    found, expected = gpu.matmul(gpu.xp.asarray(a), gpu.xp.asarray(b)), a @ b
    assert found.dtype == expected.dtype
    assert np.array_equal(found.get(), expected)


@FLOATS
def test_what_is_no_number_stays_none(gpu, dtype):
    a = np.array([[np.nan, 1.0], [np.inf, 1.0], [0.0, 1.0]], dtype)
    b = np.array([[1.0, 0.0], [2.0, 3.0]], dtype)
    with np.errstate(invalid="ignore"):
        expected = a @ b
    np.testing.assert_array_equal(gpu.matmul(gpu.xp.asarray(a), gpu.xp.asarray(b)).get(), expected)


# -- TensorFloat-32 --------------------------------------------------------------------------------------


@pytest.fixture
def tf32(gpu):
    assert not gpu.allows_tf32
    gpu.allow_tf32(True)
    assert gpu.allows_tf32
    yield
    gpu.allow_tf32(False)


FINE = 1 + 2.0**-12  # that is 1 in TensorFloat-32, which has 10 bits behind the point


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
def test_without_tf32_float32_keeps_its_digits(gpu, calls, batch):
    a, b = (gpu.xp.full((*batch, 2, 2), value, "float32") for value in (FINE, 1.0))
    assert np.array_equal(gpu.matmul(a, b).get(), np.full((*batch, 2, 2), 2 * FINE))
    assert calls[-1][1][-2] == COMPUTE_FLOAT32


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
def test_with_tf32_float32_may_lose_some(gpu, tf32, calls, batch):
    a, b = (gpu.xp.full((*batch, 2, 2), value, "float32") for value in (FINE, 1.0))
    assert np.abs(gpu.matmul(a, b).get() / 2 - FINE).max() <= 2.0**-11
    assert calls[-1][1][-2] == COMPUTE_TF32


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
def test_with_tf32_float64_keeps_its_digits(gpu, tf32, calls, batch):
    a, b = (gpu.xp.full((*batch, 2, 2), value, "float64") for value in (1 + 2.0**-50, 1.0))
    assert np.array_equal(gpu.matmul(a, b).get(), np.full((*batch, 2, 2), 2 + 2.0**-49))
    assert calls[-1][1][-2] == COMPUTE_FLOAT64


@QUICK
@given(data=st.data())
def test_with_tf32_shapes_and_memory_orders_are_the_same(gpu, tf32, data):
    (a, a_there), (b, b_there) = (
        laid_out(gpu, i, shape, data.draw(layouts(shape)), "float32")
        for i, shape in enumerate(data.draw(shapes()))
    )
    assert np.array_equal(gpu.matmul(a_there, b_there).get(), np.matmul(a, b))  # few bits each: exact


# -- handles ---------------------------------------------------------------------------------------------


def handle_and_streams(calls):
    """The handles of the products among calls of cuBLAS, and the streams that handles were set to."""
    handles = [args[0].value for name, args in calls if name.startswith("cublasGemm")]
    return handles, [args[1] for name, args in calls if name == "cublasSetStream_v2"]


def test_each_thread_has_a_handle_of_its_own(gpu, calls, at_once):
    a = gpu.xp.asarray(np.arange(12.0).reshape(3, 4))
    expected, of_threads = a.get() @ a.get().T, {}
    meet = threading.Barrier(2)

    def multiply(number):
        meet.wait()  # so that neither is done, and its place free, before the other begins
        with gpu.xp.cuda.Stream(non_blocking=True):
            for _ in range(20):
                of_threads.setdefault(number, set()).add(gpu._handle().value)
                assert np.array_equal(gpu.matmul(a, a.T).get(), expected)
        meet.wait()

    at_once(multiply, 2)
    gpu.matmul(a, a.T)
    own = handle_and_streams(calls)[0][-1]
    assert [len(handles) for handles in of_threads.values()] == [1, 1]
    assert len({own, *of_threads[0], *of_threads[1]}) == 3
    assert set(handle_and_streams(calls)[0]) == {own, *of_threads[0], *of_threads[1]}


def test_a_product_is_on_the_current_stream_in_the_workspace_of_our_own(gpu, calls):
    """cuBLAS forgets a workspace when it is given a stream."""
    a = gpu.xp.ones((2, 2))
    stream = gpu.xp.cuda.Stream(non_blocking=True)
    gpu.matmul(a, a)
    del calls[:]
    with stream:
        gpu.matmul(a, a)
        gpu.matmul(a, a)
    gpu.matmul(a, a)
    change = ["cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasGemmEx"]
    assert [name for name, _ in calls] == [*change, "cublasGemmEx", *change]
    handles, streams = handle_and_streams(calls)
    assert len(set(handles)) == 1
    assert streams == [stream.ptr, gpu.xp.cuda.get_current_stream().ptr]
    workspaces = {args[1:] for name, args in calls if name == "cublasSetWorkspace_v2"}
    assert len(workspaces) == 1
    assert workspaces.pop()[1] == 32 << 20  # WORKSPACE


def test_what_cublas_refuses_is_told(gpu, monkeypatch):
    class Refusing:
        status = ALLOC_FAILED

        def cublasGemmEx(self, *args):
            return self.status

        def __getattr__(self, name):
            return lambda *args: SUCCESS

    a = gpu.xp.ones((2, 2))
    gpu.matmul(a, a)
    library = Refusing()
    monkeypatch.setattr(gpu, "_library", library)
    with pytest.raises(RuntimeError, match=r"^cublasGemmEx: cuBLAS says ALLOC_FAILED$") as error:
        gpu.matmul(a, a)
    assert gpu.is_out_of_memory(error.value)
    library.status = 99
    with pytest.raises(RuntimeError, match=r"^cublasGemmEx: cuBLAS says 99$") as error:
        gpu.matmul(a, a)
    assert not gpu.is_out_of_memory(error.value)
