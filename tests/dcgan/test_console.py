"""Terminals and pipes that go away, streams that are closed, and signals: none of them costs the training."""

import io
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from typing import ClassVar

import numpy as np
import pytest

from dcgan import console, train
from dcgan.errors import UserError
from dcgan.run import checkpoint, progress
from dcgan.steps import StepLine

QUICK = (
    "--preset", "quick", "--batch-size", "8", "--data", "d.npy", "--set", "log_every=1",
    "--set", "grid_rows=2", "--set", "grid_columns=2", "--vitals-every", "0", "--out", "run",
)  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    np.save(tmp_path / "d.npy", np.random.default_rng(0).integers(0, 256, (48, 28, 28)).astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def start(place):
    """Starts the command of training in a process of its own, which does not outlive the test."""
    processes = []

    def begin(*arguments, before=None, **streams):
        command = [sys.executable, "-m", "dcgan.train", *QUICK, *arguments]
        path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        processes.append(subprocess.Popen(command, cwd=place, env=path, preexec_fn=before, **streams))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def wait_for_steps(place, count, process):
    path, give_up = place / "run" / "metrics.jsonl", time.monotonic() + 60
    while time.monotonic() < give_up and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)


def steps_saved(place):
    return checkpoint.load(place / "run").position["step"]


# -- in processes of their own ------------------------------------------------------------------------


def test_a_reader_that_leaves_while_the_bar_is_on_a_terminal_ends_no_run(start, place):
    """`train | head -2`."""
    terminal, end = pty.openpty()
    process = start("--steps", "6", stdout=subprocess.PIPE, stderr=end)
    os.close(end)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    os.close(terminal)
    assert steps_saved(place) == 6
    assert (place / "run" / "output.gif").exists()


def test_ctrl_c_that_ends_the_reader_of_both_streams_too_keeps_everything(start, place):
    """`train 2>&1 | tee log`: the interrupt ends `tee`, and then the handler writes to a broken pipe."""
    process = start("--steps", "5000", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for_steps(place, 2, process)
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert steps_saved(place) >= 2
    assert (place / "run" / "losses.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_ends_a_run_in_order_or_not_at_all(start, place, ignored):
    """SIGHUP keeps everything; with `nohup` training goes on, though the terminal takes no output."""

    def before():
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    terminal, end = pty.openpty()
    steps = "12" if ignored else "5000"
    process = start("--steps", steps, stdout=end, stderr=end, before=before)
    os.close(end)
    wait_for_steps(place, 2, process)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == (0 if ignored else 128 + signal.SIGHUP)
    assert steps_saved(place) == 12 if ignored else steps_saved(place) >= 2
    assert (place / "run" / "output.gif").exists()


def test_closed_streams_are_no_failure_and_nothing_is_written_in_their_place(start, place):
    """`train <&- >&- 2>&-`: the next files that are opened get the numbers of the streams."""

    def before():
        for number in range(3):
            os.close(number)

    process = start("--steps", "3", before=before)
    assert process.wait(timeout=60) == 0
    lines = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert steps_saved(place) == 3


COMMANDS = (
    "train --list", "sample run --out a.png", "animate run", "report run", "evaluate run",
    "export run --out a.onnx", "interpolate run --out a.png --between 0 1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("closed", [1, 2])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs_with_a_closed_stream(start, place, command, closed):
    assert start("--steps", "1", stdout=subprocess.DEVNULL).wait(timeout=60) == 0
    name, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, "-m", f"dcgan.{name}", *arguments],
        stdout=None if closed == 1 else subprocess.PIPE,
        stderr=None if closed == 2 else subprocess.PIPE,
        preexec_fn=lambda: os.close(closed),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0
    assert not done.stderr


# -- in this one --------------------------------------------------------------------------------------


class Broken(io.StringIO):
    """A stream that fails as one whose other end is gone, or whose disk is full, or that was closed."""

    def __init__(self, error):
        super().__init__()
        self.error, self.calls = error, 0

    def write(self, text):
        self.calls += 1
        raise self.error

    def flush(self):
        raise self.error

    def isatty(self):
        return True


FAILURES = [
    BrokenPipeError(32, "Broken pipe"),
    OSError(5, "Input/output error"),
    OSError(28, "No space left"),
    ValueError("I/O operation on closed file."),
]


@pytest.mark.parametrize("error", FAILURES)
def test_no_failure_of_a_stream_leaves_what_writes_to_it(monkeypatch, error):
    out, errors = Broken(error), Broken(error)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", errors)
    console.tell("a line")
    console.warn("a warning")
    bar = progress.Progress(3, "")
    for _ in range(3):
        bar.step(8, StepLine(1, loss_d=1.0))
        bar.say("Fréchet")
    bar.close()
    assert out.calls >= 4
    assert errors.calls >= 2


def test_streams_that_do_not_exist_are_no_failure(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    console.tell("a line")
    console.warn("a warning")
    bar = progress.Progress(1, "")
    bar.step(8, None)
    bar.close()
    with pytest.raises(SystemExit) as ended:
        console.run_command(lambda _: 3, "name")
    assert ended.value.code == 3


def test_letters_that_a_stream_lacks_are_escaped_beside_a_bar_too(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", Broken(OSError(5, "Input/output error")))
    bar = progress.Progress(3, "")
    bar.say("Fréchet distance 3")
    assert out.buffer.getvalue() == b"Fr\\xe9chet distance 3\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("a mistake"), "name: a mistake\n"),
        (OSError(28, "No space left on device", "a/b"), "name: a/b: No space left on device\n"),
        (OSError(28, "No space left on device"), "name: No space left on device\n"),
        (MemoryError(), "name: not enough memory: use smaller images, sizes or batches\n"),
        (MemoryError("2 GiB"), "name: not enough memory (2 GiB): use smaller images, sizes or batches\n"),
    ],
)
def test_failures_are_one_line_and_exit_code_2(capsys, error, said):
    def main(_):
        raise error

    with pytest.raises(SystemExit) as ended:
        console.run_command(main, "name")
    assert (ended.value.code, capsys.readouterr().err) == (2, said)


def test_no_exception_leaves_the_signal_handler(monkeypatch):
    class Gone(io.StringIO):
        def fileno(self):
            return 10**6  # no such descriptor

    for stream in (Gone(), io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "__stderr__", stream)
        with console.StopOnSignal("name") as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked
        assert stop.signal == signal.SIGTERM


def test_nothing_is_written_past_an_error_output_that_was_replaced(tmp_path, monkeypatch):
    with (tmp_path / "server.log").open("w") as stream:  # a notebook's has the descriptor of its server
        for own, written in ((None, 0), (stream, 1)):
            monkeypatch.setattr(sys, "stderr", stream)
            monkeypatch.setattr(sys, "__stderr__", own)
            with console.StopOnSignal(None):
                signal.raise_signal(signal.SIGINT)
            assert (tmp_path / "server.log").read_text().count("Stopping after this step") == written


def test_handlers_are_put_back_and_ignored_signals_stay_ignored():
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in signals]
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with console.StopOnSignal("name") as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
            assert signal.getsignal(signal.SIGTERM) == stop._ask
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == before[1]
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def test_training_runs_in_a_thread_without_handlers(place):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(train.main([*QUICK, "--steps", "1"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert steps_saved(place) == 1


# -- notebooks -----------------------------------------------------------------------------------------


class Kernel:
    """IPython in a Jupyter kernel, as far as it is asked."""

    config: ClassVar = {"IPKernelApp": {}}

    def get_ipython(self):
        return self


def test_a_notebook_is_known_by_its_kernel(monkeypatch):
    assert not console.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", Kernel())
    assert console.in_notebook()
    assert console.shows_progress()
    monkeypatch.setattr(Kernel, "config", {})  # IPython on a terminal
    assert not console.in_notebook()
    assert not console.shows_progress()


def test_the_level_of_the_logger_silences_the_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", Kernel())
    before = console.LOGGER.level
    console.LOGGER.setLevel(logging.WARNING)
    try:
        assert not console.shows_progress()
    finally:
        console.LOGGER.setLevel(before)


class Output:
    """An output of a cell: the text that a notebook stores of a widget."""

    def __init__(self, widget, display_id):
        assert display_id  # else it can't be replaced
        self.update(widget)

    def update(self, widget):
        self.text = repr(widget)


@pytest.mark.parametrize(("steps", "style"), [(10, "success"), (7, "info")])
def test_the_widget_of_a_notebook_ends_as_it_stands(monkeypatch, steps, style):
    from dcgan.run import widget_bar

    outputs = []
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(
        widget_bar,
        "display",
        lambda widget, display_id: outputs.append(Output(widget, display_id)) or outputs[0],
    )
    bar = progress._bar(10, 3)
    assert isinstance(bar, widget_bar.WidgetBar)
    assert "3/10" in outputs[0].text
    bar.update(steps - 3)
    bar.close()
    bar.close()
    (output,) = outputs
    assert f"{steps}/10" in output.text
    _, shown, _ = bar.container.children
    assert (shown.value, shown.bar_style) == (steps, style)  # "danger" would be red


def test_the_bar_of_a_notebook_without_widgets_is_no_text_of_an_error(monkeypatch, capsys):
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    bar = progress._bar(10, 3)
    bar.update(7)
    bar.close()
    shown = capsys.readouterr()
    assert "10/10" in shown.out
    assert not shown.err


# -- a program that goes on ------------------------------------------------------------------------------


def test_a_program_keeps_its_own_handlers_of_other_signals():
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with console.StopOnSignal(None) as stop:
        assert signal.getsignal(signal.SIGINT) == stop._ask
        for name in (signal.SIGTERM, signal.SIGHUP):
            assert signal.getsignal(name) == before[name]
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
    assert {name: signal.getsignal(name) for name in before} == before
