"""Tensors in files: what comes back, what is never left behind, and what damage does."""

import errno
import json
import os
import pickle
import re
import struct
from contextlib import contextmanager

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend, nn, optim, serialize

EVERY_DEVICE = True

DTYPES = [
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint16", "uint8", "bool",
]  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.safetensors"


@pytest.fixture
def umask():
    """Sets the process's umask; puts it back afterwards."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def state():
    rng = np.random.default_rng(0)
    return {"layer.weight": rng.normal(size=(3, 4)).astype(np.float32), "layer.steps": np.arange(5)}


def assert_same(loaded, expected):
    assert set(loaded) == set(expected)
    for name, array in expected.items():
        assert isinstance(loaded[name], np.ndarray)
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        assert loaded[name].tolist() == array.tolist()


def assert_refused(path):
    for read in (mg.load, mg.load_metadata):
        with pytest.raises(ValueError) as caught:
            read(path)
        assert str(path) in str(caught.value)


# -- round trips -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back(path, dtype):
    arrays = {"a": np.array([[0, 1, 2], [3, 100, 0]]).astype(dtype)}
    mg.save(arrays, path)
    assert_same(mg.load(path), arrays)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 3, 4, 5)], ids=str)
def test_every_shape_comes_back(path, shape):
    arrays = {"a": np.random.default_rng(1).normal(size=shape)}
    arrays["a"] = np.asarray(arrays["a"])
    mg.save(arrays, path)
    assert_same(mg.load(path), arrays)
    mg.save({"a": mg.tensor(arrays["a"])}, path)
    assert_same(mg.load(path), arrays)


VIEWS = {
    "transposed": lambda a: a.transpose(2, 0, 1),
    "reversed": lambda a: a[::-1],
    "part": lambda a: a[:, 1:, ::2],
    "stretched": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "other byte order": lambda a: a.astype(">f8"),
}


BYTE_ORDER = pytest.mark.cpu_only("arrays of a GPU have its own byte order")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=BYTE_ORDER) if n == "other byte order" else n for n in VIEWS]
)
def test_views_come_back_by_their_values(path, name):
    values = np.arange(24.0).reshape(2, 3, 4)
    view = VIEWS[name](values)
    mg.save({"array": view, "tensor": mg.Tensor(VIEWS[name](backend.get().asarray(values)))}, path)
    assert_same(mg.load(path), {"array": view.astype(np.float64), "tensor": view.astype(np.float64)})


def test_extreme_values_come_back_bit_for_bit(path):
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, np.finfo("float64").max, 0.1])
    mg.save({"a": values}, path)
    assert mg.load(path)["a"].tobytes() == values.tobytes()


def test_tensors_are_saved_with_or_without_a_gradient(path):
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    mg.save({"leaf": x, "computed": x * 2}, path)
    assert_same(
        mg.load(path), {"leaf": np.array([1, 2], np.float32), "computed": np.array([2, 4], np.float32)}
    )


def test_one_array_under_two_names_comes_back_twice(path):
    array = np.arange(3.0)
    mg.save({"a": array, "b": array}, path)
    loaded = mg.load(path)
    loaded["a"][0] = 7.0
    assert loaded["b"].tolist() == [0.0, 1.0, 2.0]


def test_what_was_loaded_is_ones_own_to_change(path):
    mg.save(state(), path)
    loaded = mg.load(path)
    loaded["layer.weight"][...] = 7.0
    assert_same(mg.load(path), state())


def test_names_and_metadata_may_hold_any_text(path):
    names = {"a.b.c": np.zeros(1), 'quoted "name"': np.ones(1), "größe": np.ones(2), "": np.zeros(2)}
    text = {"config": json.dumps({"lr": 1e-3, "größe": ["x"]}), "empty": "", "lines": "one\ntwo"}
    mg.save(names, path, metadata=text)
    assert_same(mg.load(path), names)
    assert mg.load_metadata(path) == text


def test_no_tensors_and_no_metadata_are_fine(path):
    mg.save({}, path)
    assert mg.load(path) == {}
    assert mg.load_metadata(path) == {}
    mg.save({}, path, metadata={"only": "text"})
    assert mg.load(path) == {}
    assert mg.load_metadata(path) == {"only": "text"}


def test_a_name_that_the_format_keeps_for_itself_is_refused(path):
    with pytest.raises(ValueError, match="__metadata__"):
        mg.save({"__metadata__": np.zeros(2)}, path)
    assert not path.exists()


def test_paths_are_text_or_paths_and_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mg.save(state(), "plain.safetensors")
    assert_same(mg.load(tmp_path / "plain.safetensors"), state())
    mg.save(state(), tmp_path / "other.safetensors")
    assert_same(mg.load(str(tmp_path / "other.safetensors")), state())


def test_a_model_goes_through_a_file(path):
    model, other = (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm(2)) for _ in range(2))
    model(mg.tensor(np.random.default_rng(0).normal(size=(3, 1, 5, 5)), "float32"))
    mg.save(model.state_dict(), path)
    other.load_state_dict(mg.load(path))
    for name, t in model.state_dict().items():
        assert other.state_dict()[name].numpy().tobytes() == t.numpy().tobytes()


def test_equal_states_are_equal_files(tmp_path):
    for name in ("a", "b"):
        mg.save(state(), tmp_path / name, metadata={"recipe": "x", "seed": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# -- writing -----------------------------------------------------------------------------------------


@contextmanager
def small_disk(_):
    """No file may grow beyond 64 bytes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def failing(function, error):
    """The function of `os` raises, as on a broken disk or at Ctrl-C."""

    def fail(*_):
        raise error

    @contextmanager
    def broken(monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            yield

    return broken


FAILURES = {
    "disk full": small_disk,
    "no sync": failing("fsync", OSError("input/output error")),
    "interrupted before the end": failing("fsync", KeyboardInterrupt()),
    "no rename": failing("replace", PermissionError("not permitted")),
    "interrupted at the rename": failing("replace", KeyboardInterrupt()),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("existing", [True, False], ids=["over a file", "a new file"])
def test_a_failure_leaves_the_old_file_and_nothing_else(path, monkeypatch, name, existing):
    if existing:
        mg.save(state(), path, metadata={"old": "yes"})
    before = path.read_bytes() if existing else None
    with pytest.raises((OSError, KeyboardInterrupt)), FAILURES[name](monkeypatch):
        mg.save({"a": np.zeros(3)}, path)
    assert (path.read_bytes() if path.exists() else None) == before
    assert [p.name for p in path.parent.iterdir()] == ([path.name] if existing else [])


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        ({"a": np.zeros(2)}, {"steps": 3}),
        ({1: np.zeros(2)}, None),
        ({"a": np.array([{}], object)}, None),
        ({"a": np.array(["text"])}, None),
    ],
    ids=["metadata that is no text", "a name that is no text", "objects", "text"],
)
def test_what_the_format_cannot_hold_is_refused_and_leaves_nothing(path, arrays, metadata):
    with pytest.raises(Exception, match="str|object|expected floats, integers or booleans"):
        mg.save(arrays, path, metadata=metadata)
    assert list(path.parent.iterdir()) == []


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mg.save(state(), tmp_path / "nowhere" / "a.safetensors")


def test_a_file_is_replaced_whole(path):
    mg.save({"large": np.zeros(1000)}, path, metadata={"old": "yes"})
    mg.save(state(), path)
    assert_same(mg.load(path), state())
    assert mg.load_metadata(path) == {}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640), (0o002, 0o664)], ids=oct
)
def test_permissions_follow_the_umask(path, umask, mask, expected):
    umask(mask)
    mg.save(state(), path)
    assert path.stat().st_mode & 0o777 == expected
    assert umask(mask) == mask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755, 0o664], ids=oct)
def test_a_file_hands_its_permissions_to_the_one_that_replaces_it(path, umask, mode):
    mg.save({"a": np.zeros(2)}, path)
    path.chmod(mode)
    umask(0o022)
    mg.save(state(), path)
    assert path.stat().st_mode & 0o7777 == mode
    assert_same(mg.load(path), state())


def test_no_special_permission_is_handed_on(path):
    mg.save({"a": np.zeros(2)}, path)
    path.chmod(0o4755)
    mg.save(state(), path)
    assert path.stat().st_mode & 0o7777 == 0o755


GROUP = pytest.mark.skipif(not hasattr(os, "chown"), reason="this system has no groups of files")


@GROUP
def test_a_file_hands_on_its_group_or_shuts_others_out(path, monkeypatch):
    asked = []
    right = os.stat

    def of_another_group(name, **options):
        found = list(right(name, **options))
        found[5] += 1  # st_gid
        return os.stat_result(found)

    mg.save({"a": np.zeros(2)}, path)
    path.chmod(0o664)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", of_another_group)
        patch.setattr(os, "chown", lambda *given: asked.append(given[1:]))
        mg.save(state(), path)
    assert asked == [(-1, path.stat().st_gid)]
    assert path.stat().st_mode & 0o777 == 0o664

    def refuse(*_):
        raise PermissionError("not in that group")

    for mode, left in ((0o664, 0o644), (0o660, 0o600), (0o640, 0o600), (0o606, 0o666)):
        path.chmod(mode)
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", of_another_group)
            patch.setattr(os, "chown", refuse)
            mg.save(state(), path)
        assert path.stat().st_mode & 0o777 == left
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
@pytest.mark.parametrize("existing", [True, False], ids=["to a file", "to nothing"])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path, monkeypatch, absolute, existing):
    (tmp_path / "store").mkdir()
    (tmp_path / "links").mkdir()
    target = tmp_path / "store" / "weights"
    if existing:
        mg.save({"a": np.zeros(2)}, target)
        target.chmod(0o600)
    first, second = tmp_path / "links" / "first", tmp_path / "second"
    first.symlink_to(target if absolute else "../store/weights")
    second.symlink_to("links/first")
    places, rename = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: places.append(os.path.dirname(a)) or rename(a, b))
    mg.save(state(), second)
    assert [os.path.realpath(place) for place in places] == [str(target.parent)]  # the rename is atomic there
    assert (first.is_symlink(), second.is_symlink(), target.is_symlink()) == (True, True, False)
    assert_same(mg.load(target), state())
    assert_same(mg.load(second), state())
    if existing:
        assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["first", "links", "second", "store", "weights"]


def test_a_link_to_a_directory_is_a_directory_of_the_path(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "file").symlink_to("../b/file")
    (tmp_path / "there").symlink_to("a")
    mg.save(state(), tmp_path / "there" / "file")
    assert_same(mg.load(tmp_path / "b" / "file"), state())


def test_a_loop_of_links_is_an_error_and_a_link_to_nowhere_too(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("none/c")
    with pytest.raises(OSError, match=r"symbolic links.*'.*a'") as caught:
        mg.save(state(), tmp_path / "a")
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(FileNotFoundError, match=f"'{tmp_path / 'c'}'"):
        mg.save(state(), tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_file_is_not_replaced(path, kind):
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(
        OSError, match=f"{'directory' if kind == 'directory' else 'not a plain file'}.*{path}"
    ):
        mg.save(state(), path)
    assert path.is_dir() if kind == "directory" else path.is_fifo()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# -- wrong arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: mg.save(nn.ReLU(), p), r"expected tensors by name.*got ReLU: pass its \.state_dict\(\)"),
        (lambda p: mg.save(optim.SGD([mg.tensor(1.0, requires_grad=True)]), p), r"pass its \.state_dict\(\)"),
        (lambda p: mg.save(p, state()), r"first and then the path: save\(tensors, path\)"),
        (lambda p: mg.save(str(p), state()), r"first and then the path: save\(tensors, path\)"),
        (lambda p: mg.save([np.zeros(2)], p), "expected tensors by name, such as a dict, got list"),
        (lambda p: mg.save(nn.Dense(1, 1).parameters(), p), "got generator"),
        (lambda p: mg.save(np.zeros(2), p), "got ndarray"),
        (lambda p: mg.save(mg.tensor([1.0]), p), "got Tensor"),
        (lambda p: mg.save({0: np.zeros(2)}, p), "expected names of tensors as str, got 0"),
        (lambda p: mg.save({"a": [[1.0], [1.0, 2.0]]}, p), r"'a': expected a tensor or an array, got \[\["),
        (lambda p: mg.save({"a": {"b": 1.0}}, p), "'a' is object: expected floats"),
        (lambda p: mg.save({"a": np.ma.masked_array([1.0], [True])}, p), r"'a': expected .*with \.filled"),
        (lambda p: mg.save(state(), p, {"step": 3}), "metadata 'step': expected a str, got int"),
        (lambda p: mg.save(state(), p, "text"), "expected metadata by name, such as a dict, got str"),
        (lambda p: mg.save(state(), None), "save: expected a path, a str or os.PathLike, got NoneType"),
        (lambda p: mg.save(state(), 3), "save: expected a path.*got int"),
        (lambda p: mg.load(nn.ReLU()), r"load: expected a path.*got ReLU: its \.load_state_dict"),
        (lambda p: mg.load(0), "load: expected a path.*got int"),
        (lambda p: mg.load(state()), "load: expected a path.*got dict"),
        (lambda p: mg.load_metadata(None), "load_metadata: expected a path.*got NoneType"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_told_with_the_remedy(path, call, message):
    with pytest.raises(TypeError, match=message):
        call(path)
    assert list(path.parent.iterdir()) == []


def test_masks_are_refused_where_weights_are_loaded():
    layer = nn.Dense(1, 1)
    masked = np.ma.masked_array(np.ones((1, 1), np.float32), [[True]])
    before = layer.weight.item()
    with pytest.raises(TypeError, match=r"got a MaskedArray: .* with \.filled\(value\)"):
        layer.load_state_dict({**layer.state_dict(), "weight": masked})
    assert layer.weight.item() == before


# -- reading what is damaged -------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    for missing in (tmp_path / "none.safetensors", tmp_path):
        for read in (mg.load, mg.load_metadata):
            with pytest.raises(FileNotFoundError, match=f"No such file or directory: '{missing}'"):
                read(missing)


def saved(path):
    """A whole file's bytes, and the length of its header."""
    mg.save(state(), path, metadata={"recipe": "flux"})
    content = path.read_bytes()
    return content, 8 + struct.unpack("<Q", content[:8])[0]


def test_a_file_that_was_cut_off_is_refused(path):
    content, header = saved(path)
    for length in (0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(content) - 1):
        path.write_bytes(content[:length])
        assert_refused(path)


def test_a_file_with_more_at_its_end_is_refused(path):
    content, _ = saved(path)
    path.write_bytes(content + b"\0")
    assert_refused(path)


def refusal(path):
    """What `load` says against a file, or None where it takes it."""
    try:
        mg.load(path)
        mg.load_metadata(path)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x20, 0x80, 0xFF], ids=hex)
def test_a_flipped_byte_in_the_header_raises_value_error_or_nothing(path, mask):
    content, header = saved(path)
    refused = 0
    for place in range(header):
        path.write_bytes(content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])
        message = refusal(path)
        assert message is None or str(path) in message
        refused += message is not None
    assert refused > header / 3


def test_headers_of_any_size_and_kind_are_refused(path):
    text = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    for header in (
        struct.pack("<Q", 2**63) + text,
        struct.pack("<Q", 2**64 - 1) + text,
        struct.pack("<Q", 0),
        struct.pack("<Q", len(text)) + text,
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    ):
        path.write_bytes(header)
        assert_refused(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]},
        {"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]},
        {"shape": [1], "data_offsets": [0, 4]},
        [],
    ],
    ids=json.dumps,
)
def test_entries_that_make_no_array_are_refused(path, entry):
    text = json.dumps({"a": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    with pytest.raises(ValueError) as caught:
        mg.load(path)
    assert str(path) in str(caught.value)


class Spreads:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_never_run(path, tmp_path, protocol):
    target = tmp_path / "ran"
    path.write_bytes(pickle.dumps({"a": Spreads(target)}, protocol))
    assert_refused(path)
    assert not target.exists()


def test_numpys_own_files_are_refused(path):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
    assert_refused(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert_refused(path)


def test_numbers_that_the_format_does_not_know_are_refused(tmp_path):
    with pytest.raises(TypeError, match="'c' is complex128: expected floats, integers or booleans"):
        mg.save({"c": np.ones(2, np.complex128)}, tmp_path / "c.safetensors")
    assert list(tmp_path.iterdir()) == []


# -- the folder of a file ----------------------------------------------------------------------------


def test_a_folder_is_made_with_those_above_it_and_left_alone_where_it_is(tmp_path):
    serialize.make_folder_of(tmp_path / "a" / "b" / "file")
    (tmp_path / "a" / "b" / "mine").touch()
    serialize.make_folder_of(tmp_path / "a" / "b" / "file")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("place", "why"), [("file", "it is there, and no folder"), ("file/b", "Not a directory")]
)
def test_a_folder_that_can_not_be_made_is_named(tmp_path, place, why):
    (tmp_path / "file").touch()
    path = tmp_path / place / "a.png"
    with pytest.raises(OSError, match=re.escape(f"the folder {path.parent} can't be made: {why}")) as told:
        serialize.make_folder_of(path)
    assert told.value.filename == str(path)
