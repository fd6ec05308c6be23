"""The C kernels' library: compiled once, kept where nobody else can write, and done without if need be."""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
import minigrad.__main__ as command
from minigrad import backend
from minigrad.backend.cpu import compiler, library_cache, native
from minigrad.backend.cpu.compiler import CompilerError
from minigrad.backend.cpu.library_cache import CacheError
from minigrad.backend.environment import BadEnvironment

COMPILER = next(filter(None, map(shutil.which, compiler.NAMES)), None)
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="the kernels need a POSIX system"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")

# A library of two kernels that takes a moment to compile, with the real team of threads.
SMALL = """
#include "threads.h"
#ifdef DOUBLE
#define KERNEL(name) __attribute__((visibility("default"))) void name##_double
#else
#define KERNEL(name) __attribute__((visibility("default"))) void name##_float
#endif
typedef struct { int64_t *to; int64_t members, turns; int64_t *scratch; } Call;
static void piece_of(const void *arguments, int64_t piece, int64_t member) {
    const Call *c = arguments;
    if (c->scratch) c->scratch[member * 16] += 1;
    uint64_t found = (uint64_t)piece;
    for (int64_t i = 0; i < c->turns; ++i) found = found * 6364136223846793005u + 1442695040888963407u;
    c->to[piece] = (int64_t)((uint64_t)c->to[piece] + found);
}
// Adds a number of its own to each of `to` (pieces,); each member counts its pieces in scratch (members, 16).
KERNEL(add)(int64_t *to, int64_t pieces, int64_t turns,
            int64_t *scratch, int64_t members) {
    const Call c = {to, members, turns, scratch};
    share_among(piece_of, &c, pieces, members);
}
KERNEL(twice)(const double *x, double *y, double factor) { *y = 2 * factor * *x; }
"""


def texts(more=""):
    return {name: native.sources()[name] for name in ("threads.c", "threads.h", "vectors.h")} | {
        "kernels.c": SMALL + more
    }


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache directory, and an environment without settings."""
    for name in ("MINIGRAD_NATIVE", "MINIGRAD_CFLAGS", "CC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "minigrad"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """`script(text)` makes $CC a shell script."""

    def make(text):
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)
        monkeypatch.setenv("CC", str(path))
        return path

    return make


def works(loaded):
    """Whether the kernels compute."""
    x, y = np.array([3.0]), np.zeros(1)
    loaded.kernels.twice[np.dtype("float64")](native.address(x), native.address(y), 0.5)
    return y[0] == 3.0


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A library of the texts that are the same in all tests."""
    if COMPILER is None:
        pytest.skip("no C compiler")
    return compiler.find().compile(texts(), tmp_path_factory.mktemp("ready"))


@pytest.fixture
def done(ready, monkeypatch):
    """A compiler that gives the ready library. The list grows with each call of it."""
    folders = []

    def copy(self, sources, folder):
        for name, text in sources.items():
            (folder / name).write_text(text)
        folders.append(folder)
        return Path(shutil.copy(ready, folder / "kernels.so"))

    monkeypatch.setattr(compiler.Compiler, "compile", copy)
    return folders


def left(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# -- the library and its cache -------------------------------------------------------------------------


@needs_compiler
def test_a_library_is_compiled_once_and_kept(cache):
    announced = []
    first = native.load(texts(), lambda: announced.append(1))
    assert works(first)
    assert re.fullmatch(r"C, (gcc|clang) \d+\.\d+\.\d+, (16|32|64)-byte vectors", first.status.name)
    assert first.status.path.parent == cache
    assert first.status.reason == ""
    again = native.load(texts(), lambda: announced.append(1))
    assert works(again)
    assert again.status == first.status
    assert (announced, left(cache)) == ([1], [first.status.path.name])
    assert stat_of(cache) == stat_of(first.status.path) == 0o700


def stat_of(path):
    return path.stat().st_mode & 0o777


@needs_compiler
def test_what_a_library_depends_on_is_in_its_name(cache, monkeypatch, script):
    found = compiler.find()
    key = native._key(texts(), found)
    assert native._key(texts("// a change"), found) != key
    monkeypatch.setenv("MINIGRAD_CFLAGS", "-DA='a b' -O1")
    assert compiler.find().options[-2:] == ("-DA=a b", "-O1")
    assert native._key(texts(), compiler.find()) != key
    monkeypatch.delenv("MINIGRAD_CFLAGS")
    assert native._key(texts(), found._replace(version="gcc 99")) != key
    monkeypatch.setattr(compiler, "processor", lambda: "another")
    assert native._key(texts(), found) != key


def test_the_processor_is_told_by_its_model_and_instructions():
    lines = compiler.processor().splitlines()
    assert lines[1] == os.uname().machine
    if sys.platform == "linux" and lines[1] == "x86_64":
        assert any(line.startswith("flags") and " sse2 " in line for line in lines)
        assert not any(line.startswith("cpu MHz") for line in lines)  # it is another one each time


def stored():
    """The path of a library in the cache, which this process has not loaded."""
    found = compiler.find()
    sources = texts()
    return library_cache.store(native._key(sources, found), lambda folder: found.compile(sources, folder))


def truncated(content):
    return content[: len(content) // 2]


def with_another_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@needs_compiler
@pytest.mark.parametrize("damage", [truncated, with_another_bit, lambda content: b""])
def test_a_damaged_library_is_made_anew(cache, done, damage):
    path = stored()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    loaded = native.load(texts())
    assert works(loaded)
    assert len(done) == 2
    assert left(cache) == [loaded.status.path.name]
    assert loaded.status.path.read_bytes() == whole


@needs_compiler
def test_a_whole_file_that_is_no_library_is_made_anew_once(cache, done):
    """As of another system, in a home directory that both have."""
    key = native._key(texts(), compiler.find())
    cache.mkdir(parents=True, mode=0o700)
    wrong = cache / "wrong"
    wrong.write_bytes(b"\x7fELF of another machine")
    path = cache / library_cache._name(key, wrong)
    wrong.rename(path)
    assert library_cache.find(key) == path
    assert works(native.load(texts()))
    assert len(done) == 1
    assert not path.exists()


@needs_compiler
def test_a_library_without_a_kernel_that_the_sources_have_is_refused(cache):
    """`KERNEL(missing)` is there for who reads the text alone."""
    loaded = native.load(texts("\n#if 0\nKERNEL(missing)(double x) {}\n#endif\n"))
    assert loaded.kernels is None
    assert "the compiled library can't be loaded" in loaded.status.reason
    assert "missing_float" in loaded.status.reason


@needs_compiler
def test_processes_at_once_get_the_same_library(cache):
    program = (
        "from minigrad.backend.cpu import native\nimport sys\n"
        "texts = eval(sys.stdin.read())\nloaded = native.load(texts)\nprint(loaded.status)\n"
        "assert loaded.kernels.twice\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, stderr=-1, text=True)
        for _ in range(4)
    ]
    for process in processes:
        process.stdin.write(repr(texts()))
        process.stdin.close()
        process.stdin = None
    ended = [process.communicate(timeout=60) for process in processes]
    assert [err for _, err in ended] == [""] * 4
    assert len({out for out, _ in ended}) == 1
    assert len(left(cache)) == 1


@needs_compiler
def test_the_libraries_used_last_are_kept_and_the_others_go(cache, done):
    cache.mkdir(parents=True, mode=0o700)
    for age in range(12):
        path = cache / f"{age:032x}-0.so"
        path.touch()
        os.utime(path, (time.time() - 100 - age,) * 2)
    (cache / "making-old").mkdir()
    os.utime(cache / "making-old", (time.time() - 2 * library_cache.MOST_SECONDS,) * 2)
    (cache / "making-new").mkdir()
    (cache / "notes.txt").touch()
    made = native.load(texts()).status.path.name
    newest = [f"{age:032x}-0.so" for age in range(library_cache.KEPT - 1)]
    assert left(cache) == sorted([*newest, made, "making-new", "notes.txt"])


@needs_compiler
def test_a_library_that_is_used_counts_as_new(cache, done):
    path = native.load(texts()).status.path
    os.utime(path, (1e9, 1e9))
    native.load(texts())
    assert path.stat().st_mtime > 1.5e9


# -- where the cache can't be used: a library for this process alone --------------------------------------


def alone(loaded, reason):
    """Whether there are kernels for this process alone, and why."""
    assert works(loaded)
    assert loaded.status.path is None
    assert re.search(reason, loaded.status.reason), loaded.status.reason
    assert "compiled for this process alone" in str(loaded.status)
    return True


@needs_compiler
@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_directory_that_others_can_write_to_is_not_used(cache, done, mode):
    path = native.load(texts()).status.path
    cache.chmod(mode)
    assert alone(native.load(texts()), rf"others can write to {re.escape(str(cache))}: chmod go-w ")
    assert left(cache) == [path.name]


@needs_compiler
def test_a_file_that_others_can_write_to_is_not_loaded(cache, done):
    path = native.load(texts()).status.path
    path.chmod(0o766)
    assert alone(native.load(texts()), rf"others can write to {re.escape(str(path))}")


@needs_compiler
@pytest.mark.parametrize("what", ["directory", "file"])
def test_what_belongs_to_another_user_is_not_used(cache, done, monkeypatch, what):
    path = native.load(texts()).status.path
    foreign, change = (cache, "stat") if what == "directory" else (path, "lstat")
    before = getattr(Path, change)

    def of_another(self, **options):
        found = before(self, **options)
        if self != foreign:
            return found
        return os.stat_result((*found[:4], os.geteuid() + 1, *found[5:]))

    monkeypatch.setattr(Path, change, of_another)
    assert alone(
        native.load(texts()), rf"{re.escape(str(foreign))} belongs to another user: set XDG_CACHE_HOME"
    )
    with pytest.raises(CacheError, match="belongs to another user"):
        library_cache.find(native._key(texts(), compiler.find()))


@needs_compiler
def test_a_link_in_place_of_a_library_is_not_followed(cache, done, tmp_path):
    path = native.load(texts()).status.path
    path.rename(tmp_path / "elsewhere.so")
    path.symlink_to(tmp_path / "elsewhere.so")
    assert alone(native.load(texts()), "is no plain file: remove it")


@needs_compiler
def test_a_directory_that_can_not_be_made_is_done_without(cache, done, tmp_path):
    (tmp_path / "cache").write_text("a file is in its place")
    assert alone(native.load(texts()), "minigrad can't be written to: Not a directory")


@needs_compiler
def test_a_disk_that_is_full_while_compiling_is_done_without(cache, script, tmp_path):
    """The compiler fails where it writes into the cache; elsewhere it works."""
    script(
        f'case "$PWD" in {tmp_path}/cache/*) case "$*" in *-shared*) '
        'echo "error: No space left on device" >&2; exit 1;; esac;; esac\n'
        f'exec {COMPILER} "$@"'
    )
    assert alone(native.load(texts()), "failed with exit code 1: error: No space left on device")
    assert left(cache) == []


@needs_compiler
def test_sources_that_can_not_be_written_are_told(cache, done, monkeypatch):
    """As on a full disk, which /dev/full is."""
    write = Path.write_text

    def to_a_full_disk(self, text, **options):
        with contextlib.suppress(OSError) if cache not in self.parents else contextlib.nullcontext():
            return write(Path("/dev/full") if cache in self.parents else self, text, **options)

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(Path, "write_text", to_a_full_disk)
    assert alone(native.load(texts()), "minigrad can't be written to: No space left on device")


@needs_compiler
def test_a_user_without_a_home_has_kernels_for_one_process(cache, done, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert alone(native.load(texts()), "there is no home directory for a cache: set HOME or XDG_CACHE_HOME")


def test_a_relative_cache_directory_is_ignored(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert library_cache.directory().is_absolute()
    assert Path.home() in library_cache.directory().parents


@needs_compiler
def test_a_private_library_leaves_no_file(cache, done, tmp_path, monkeypatch):
    (tmp_path / "cache").touch()
    (tmp_path / "private").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "private"))
    assert alone(native.load(texts()), "can't be written to")
    assert left(tmp_path / "private") == []


# -- where there are no kernels --------------------------------------------------------------------------


def numpys(loaded, reason):
    """Whether there are no kernels, and why."""
    assert loaded.kernels is None
    assert (loaded.status.name, loaded.status.path, loaded.status.compiled) == ("NumPy", None, False)
    assert re.search(reason, loaded.status.reason), loaded.status.reason
    assert str(loaded.status) == f"NumPy: {loaded.status.reason}"
    return True


def test_no_compiler(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert numpys(native.load(texts()), r"^no C compiler was found: install gcc or clang")


def test_a_compiler_that_is_not_there(cache, monkeypatch):
    monkeypatch.setenv("CC", "ccache-of-nobody gcc")
    expected = "^CC='ccache-of-nobody gcc': there is no such program: unset CC, or correct it$"
    assert numpys(native.load(texts()), expected)
    monkeypatch.setenv("CC", "gcc '")
    assert numpys(native.load(texts()), r"^CC=.*: No closing quotation")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo 'internal error: bad luck' >&2; exit 4", "failed with exit code 4: internal error: bad luck"),
        ("exit 1", "failed with exit code 1: it said nothing"),
        ("echo made by hand; exit 0", "ended without an error, but wrote no library"),
        (
            'for a; do case "$b" in -o) echo nonsense > "$a";; esac; b="$a"; done',
            "the compiled library can't be loaded",
        ),
    ],
    ids=["fails", "fails without a word", "writes nothing", "writes no library"],
)  # fmt: skip
def test_a_compiler_that_does_not_work(cache, script, text, said):
    script(text)
    assert numpys(native.load(texts()), said)
    assert not [name for name in left(cache) if not name.endswith(".so")]


def test_the_line_with_the_error_is_told(cache, script):
    script(
        'case "$1" in --version) echo version 1; exit;; esac; '
        "echo 'kernels.c: In function f:' >&2; echo 'kernels.c:3:1: error: no such type' >&2; exit 1"
    )
    assert numpys(native.load(texts()), r"failed with exit code 1: kernels.c:3:1: error: no such type$")


@pytest.mark.parametrize("waits", ["wait", "exit 0"])
@pytest.mark.parametrize("when", ["at once", "while compiling"])
def test_a_compiler_that_hangs_is_ended_with_its_children(cache, script, monkeypatch, tmp_path, when, waits):
    """Its child too, which holds its output open, where it does not wait for the child itself."""
    monkeypatch.setattr(compiler, "TIMEOUT", 0.3)
    lets_go = 'case "$1" in --version) echo version 1; exit;; esac\n' if when == "while compiling" else ""
    script(f"{lets_go}echo x >> {tmp_path}/begun\nsleep 600 & echo $! >> {tmp_path}/children\n{waits}")
    started = time.monotonic()
    assert numpys(native.load(texts()), r"compiler has not ended after 0\.3 s$")
    assert time.monotonic() - started < 30
    assert (tmp_path / "begun").read_text() == "x\n"  # it is not tried again
    for child in (tmp_path / "children").read_text().split():
        assert not is_alive(int(child))
    assert left(cache) == []


def is_alive(process):
    for _ in range(100):
        try:
            os.kill(process, 0)
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False  # it has ended; nobody has asked yet
        except (ProcessLookupError, FileNotFoundError):
            return False
        time.sleep(0.02)
    return True


def test_ctrl_c_ends_the_compiler(cache, script, monkeypatch, tmp_path):
    child, started, start = tmp_path / "child", threading.Event(), compiler._start
    script(f"sleep 600 & echo $! > {child}; wait")

    def start_and_tell(*arguments):
        process = start(*arguments)
        started.set()
        return process

    def interrupt():
        started.wait(20)
        while not (child.exists() and child.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(compiler, "_start", start_and_tell)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 the thread has to be joined after it
            thread.start()
            native.load(texts())
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert not is_alive(int(child.read_text()))


@needs_compiler
def test_a_compiler_without_march_native_gets_another_option(cache, script):
    path = script(f'for a; do case "$a" in -march=native) exit 1;; esac; done; exec {COMPILER} "$@"')
    assert works(native.load(texts()))
    path.write_text(
        f'#!/bin/sh\nfor a; do case "$a" in -m*=native) exit 1;; esac; done; exec {COMPILER} "$@"'
    )
    assert works(native.load(texts("// not the same")))


@needs_compiler
def test_a_compiler_is_found_by_a_relative_path(cache, script, monkeypatch, tmp_path):
    script(f'exec {COMPILER} "$@"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CC", "./compiler")
    assert works(native.load(texts()))


@needs_compiler
def test_the_variable_cc_may_have_arguments(cache, monkeypatch):
    monkeypatch.setenv("CC", f"{COMPILER} -DNOTHING")
    assert compiler.find().command == (COMPILER, "-DNOTHING")
    assert works(native.load(texts()))


# -- the setting --------------------------------------------------------------------------------------


def test_numpys_forms_are_had_for_the_asking(cache, monkeypatch):
    monkeypatch.setenv("MINIGRAD_NATIVE", "0")
    assert numpys(native.load(texts()), "^MINIGRAD_NATIVE=0$")
    assert left(cache) == []


@pytest.mark.parametrize("value", ["", "2", "yes", "01", " 1"])
def test_another_setting_is_an_error(cache, monkeypatch, value):
    monkeypatch.setenv("MINIGRAD_NATIVE", value)
    with pytest.raises(BadEnvironment, match=rf"^MINIGRAD_NATIVE='{value}': expected 0 .* or 1 "):
        native.load(texts())


def test_kernels_that_are_demanded_and_can_not_be_had_are_an_error(cache, monkeypatch):
    monkeypatch.setenv("MINIGRAD_NATIVE", "1")
    monkeypatch.setenv("CC", "not-there")
    with pytest.raises(BadEnvironment, match=r"^MINIGRAD_NATIVE=1: there are no C kernels: CC='not-there'"):
        native.load(texts())


@needs_compiler
def test_kernels_that_are_demanded_and_can_be_had_are_used(cache, done, monkeypatch):
    monkeypatch.setenv("MINIGRAD_NATIVE", "1")
    assert works(native.load(texts()))


def test_the_kernels_are_loaded_once_by_threads_at_once(monkeypatch, at_once):
    loads = []

    def load(sources, announce):
        loads.append(announce)
        time.sleep(0.05)
        return native.Loaded(None, native.KernelStatus("NumPy", reason="a test"))

    monkeypatch.setattr(native, "_loaded", None)
    monkeypatch.setattr(native, "load", load)
    at_once(lambda _: native.kernels(), 4)
    assert len(loads) == 1
    assert backend.cpu_kernels().reason == "a test"


# -- signatures ---------------------------------------------------------------------------------------


def test_signatures_are_read_from_the_text():
    text = """
    KERNEL(not_at_the_start)(double x) {}
KERNEL(one)(const REAL *x, REAL *const y, int64_t count,
            double rate, const int64_t steps) {
// KERNEL(in_a_comment)(double x)
KERNEL(two)(const void *arguments) {
KERNEL(none)() {
"""
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    assert native.signatures(text) == {
        "one": [pointer, pointer, integer, real, integer],
        "two": [pointer],
        "none": [],
    }


@pytest.mark.parametrize("argument", ["int count", "float x", "REAL x", "size_t n", "x"])
def test_an_argument_of_another_type_is_an_error(argument):
    with pytest.raises(TypeError, match=rf"KERNEL\(f\): expected pointers, int64_t or double .*'{argument}'"):
        native.signatures(f"KERNEL(f)(const REAL *x, {argument}) {{")


def test_every_kernel_has_a_signature():
    found = {name for text in native.sources().values() for name in native.signatures(text)}
    written = re.findall(r"^KERNEL\((\w+)\)\(", "\n".join(native.sources().values()), re.MULTILINE)
    assert found == set(written)
    assert len(written) == len(found) > 0


@needs_compiler
def test_the_name_of_no_kernel_is_an_error(cache, done):
    with pytest.raises(AttributeError, match="no kernel is called 'adamant'"):
        _ = native.load(texts()).kernels.adamant


# -- the team of threads ------------------------------------------------------------------------------


@pytest.fixture
def team(cache, done):
    """The small library's function `add`, of a team of its own."""
    kernels = native.load(texts()).kernels
    yield kernels
    kernels.set_members(1)


PIECES = 64


def numbers_by_hand(turns):
    found = np.arange(PIECES, dtype=np.uint64)
    for _ in range(turns):
        found = found * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    return found.astype(np.int64)


def adds(kernels, turns=3, members=1024, calls=1):
    """Return the sum that a number of calls add up to, and the pieces that each member did."""
    to, scratch = np.zeros(PIECES, np.int64), np.zeros((members, 16), np.int64)
    for _ in range(calls):
        kernels.add[np.dtype("float32")](native.address(to), PIECES, turns, native.address(scratch), members)
    return to, scratch[:, 0]


@pytest.mark.parametrize("members", [1, 2, 3, 8])
def test_each_piece_is_done_once_by_any_number_of_members(team, members):
    team.set_members(members)
    to, done = adds(team, calls=50)
    assert np.array_equal(to, 50 * numbers_by_hand(3))
    assert done.sum() == 50 * PIECES
    assert not done[members:].any()


def test_a_call_returns_when_all_pieces_are_done(team):
    """Of three long pieces, one thread does the last while the other has nothing to do."""
    turns, expected = 100_000, []
    for number in range(3):
        for _ in range(turns):
            number = (number * 6364136223846793005 + 1442695040888963407) % 2**64
        expected.append(number)
    team.set_members(2)
    scratch = np.zeros((2, 16), np.int64)
    for _ in range(300):
        to = np.zeros(3, np.int64)
        team.add[np.dtype("float32")](native.address(to), 3, turns, native.address(scratch), 2)
        assert to.view(np.uint64).tolist() == expected
    assert scratch[:, 0].sum() == 900


def test_no_member_comes_in_for_whom_a_call_has_no_memory(team):
    """Whatever the number of members was set to after the memory was made."""
    team.set_members(8)
    adds(team, turns=2000, calls=20)  # they are there now
    to, scratch = np.zeros(PIECES, np.int64), np.zeros((8, 16), np.int64)
    for _ in range(200):
        team.add[np.dtype("float32")](native.address(to), PIECES, 200, native.address(scratch), 2)
    assert not scratch[2:].any()
    assert scratch[:2, 0].sum() == 200 * PIECES


def test_calls_from_several_threads_at_once(team, at_once):
    team.set_members(3)
    expected = 40 * numbers_by_hand(50)

    def work(number):
        for _ in range(5):
            to, done = adds(team, turns=50, calls=40)
            assert np.array_equal(to, expected)
            assert done.sum() == 40 * PIECES
            team.set_members(2 + number % 3)

    at_once(work, 4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_in_the_middle_of_calls_has_members_of_its_own(team):
    team.set_members(2)
    expected = numbers_by_hand(2000)
    stop, wrong = threading.Event(), []

    def work():
        while not stop.is_set():
            if not np.array_equal(adds(team, turns=2000)[0], expected):
                wrong.append("a thread of the parent")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(10)  # rather than to wait for ever
                try:
                    os._exit(0 if computes_with_two(team, expected) else 1)
                finally:
                    os._exit(2)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def computes_with_two(team, expected):
    """Whether results are right, and a second member does some of the work before long."""
    for _ in range(5000):
        to, done = adds(team, turns=2000)
        if not np.array_equal(to, expected):
            return False
        if done[1]:
            return len(os.listdir("/proc/self/task")) == 2 if Path("/proc/self/task").exists() else True
    return False


def test_members_that_are_not_wanted_do_nothing_and_come_back(team):
    team.set_members(4)
    adds(team, turns=2000, calls=20)
    team.set_members(2)
    for _ in range(20):
        assert not adds(team, turns=2000, calls=10)[1][2:].any()
    team.set_members(4)
    for _ in range(2000):
        if adds(team, turns=2000)[1][2:].any():
            return
    pytest.fail("no member came back")


def test_a_team_that_slept_wakes_up(team):
    team.set_members(2)
    for _ in range(200):
        time.sleep(0.002)  # far longer than they look for work
        if adds(team, turns=20000)[1][1]:
            return
    pytest.fail("the second member did nothing")


# -- what is told -------------------------------------------------------------------------------------


def test_the_command_shows_what_is_used(capsys, monkeypatch):
    monkeypatch.setattr(native, "_loaded", native.Loaded(None, native.KernelStatus("NumPy", reason="a test")))
    assert command.main([]) == 0
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["minigrad"] == mg.__version__
    assert lines["Python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert lines["NumPy"].startswith(f"{np.__version__}, ")
    assert re.search(r", \d+ threads?$", lines["CPU"])
    assert lines["CPU kernels"] == "NumPy: a test"
    assert lines["GPU"]


def test_the_command_tells_a_setting_that_is_none(capsys, monkeypatch):
    monkeypatch.setattr(native, "_loaded", None)
    monkeypatch.setenv("MINIGRAD_NATIVE", "on")
    assert command.main([]) == 2
    assert capsys.readouterr() == (
        "",
        "minigrad: MINIGRAD_NATIVE='on': expected 0 (NumPy's forms) or 1 (C kernels)\n",
    )


def test_a_program_that_can_not_be_run(tmp_path):
    with pytest.raises(CompilerError, match="can't be run: Permission denied|can't be run: Is a directory"):
        compiler._run([str(tmp_path)])
