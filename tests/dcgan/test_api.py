"""The package for programs: `dcgan.fit`, `dcgan.load`, and the runs that they return."""

import asyncio
import copy
import doctest
import gc
import inspect
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import typing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dcgan
import minigrad as mg
from dcgan import evaluate, interpolate, sample, train
from dcgan.api import fit as fitting
from dcgan.api import generator
from dcgan.api import images as images_of_api
from dcgan.api import ledger as ledger_of_api
from dcgan.api import run as run_of_api
from dcgan.api.fields import Fields
from dcgan.data import mnist
from dcgan.recipe.layer import Layer
from dcgan.recipe.layers import BatchNorm, Dense, Dropout, Flatten, LeakyReLU, Reshape, Tanh
from dcgan.recipe.preset import SETTABLE, Preset
from dcgan.run import checkpoint, training

SHORT = {"batch_size": 8, "grid_rows": 2, "grid_columns": 2}


@pytest.fixture(autouse=True)
def silent():
    """The messages of the runs are left out."""
    logger = logging.getLogger("dcgan")
    before = logger.level
    logger.setLevel("WARNING")
    yield
    logger.setLevel(before)


@pytest.fixture(autouse=True)
def plain_ends(monkeypatch):
    """The pictures of a run's end are left out: matplotlib takes a second for each run."""
    monkeypatch.setattr(training.Outputs, "final", lambda self, step: {})
    monkeypatch.setattr(training.Outputs, "write_curves", lambda self: None)
    monkeypatch.setattr(training.Checkup, "finish", lambda self: None)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)


# As quick, but for the networks, which are tiny.
TINY = dcgan.presets.get(
    "quick",
    generator=(Dense(32), BatchNorm(), LeakyReLU(0.2), Dense(784), Tanh(), Reshape(1, 28, 28)),
    discriminator=(Flatten(), Dense(16), Dropout(0.3), Dense(1)),
)


def fit(images, recipe=TINY, steps=3, **further):
    return dcgan.fit(recipe, images, steps=steps, **{**SHORT, **further})


def content(run):
    """The bytes of a run's checkpoint: the weights, and all that its next step depends on."""
    return (run.path / checkpoint.FILE_NAME).read_bytes()


@pytest.fixture
def run(images, tmp_path):
    return fit(images, out=tmp_path / "run")


# -- the package itself --------------------------------------------------------------------------------


def in_a_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_is_imported_without_numpy_and_commands():
    said = in_a_process(
        "import sys, dcgan\n"
        "print([m for m in sys.modules if m == 'numpy' or m.startswith(('minigrad', 'dcgan'))])"
    )
    assert said == "['dcgan']\n"


def test_importing_the_command_train_changes_no_public_name():
    said = in_a_process(
        "import dcgan, types, dcgan.train, dcgan.data.fit, dcgan.api.fit, dcgan.run.training\n"
        "names = ('fit', 'load', 'ledger')\n"
        "print(all(not isinstance(getattr(dcgan, name), types.ModuleType) for name in names))\n"
        "print(dcgan.fit.__module__, dcgan.load.__module__)"
    )
    assert said == "True\ndcgan.api.fit dcgan.api.run\n"


def test_every_public_name_is_there_and_in_the_stub():
    stub = Path(dcgan.__file__).with_suffix(".pyi").read_text()
    assert set(dcgan.__all__) <= set(dir(dcgan))
    for name in dcgan.__all__:
        assert getattr(dcgan, name) is not None
        assert f" as {name}\n" in stub or f"{name}: " in stub
    assert stub.count(" as ") == len(dcgan.__all__) - 1  # all but __version__
    assert dcgan.__version__ == mg.__version__
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        _ = dcgan.frobnicate


@pytest.mark.parametrize("module", [fitting, generator, images_of_api, ledger_of_api, run_of_api])
def test_the_examples_are_true(monkeypatch, module):
    digits = mnist.images("test")[:100]
    monkeypatch.setattr(mnist, "images", lambda split="train": digits)
    result = doctest.testmod(module)
    assert result.attempted >= 2
    assert result.failed == 0


# -- training ------------------------------------------------------------------------------------------


def test_a_run_is_that_of_the_command(images, tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", images)
    options = ["--set", "grid_rows=2", "--set", "grid_columns=2", "--batch-size", "8", "--steps", "3"]
    made = ["--preset", "quick", "--data", str(tmp_path / "images.npy"), "--out", str(tmp_path / "command")]
    assert train.main([*made, *options]) == 0
    assert content(fit(images, "quick")) == content(dcgan.load(tmp_path / "command"))
    assert content(fit(tmp_path / "images.npy", "quick")) == content(dcgan.load(tmp_path / "command"))


def test_two_trainings_in_one_process_are_equal_and_leave_the_random_state(images):
    mg.manual_seed(5)
    before = mg.random.get_state()
    first, second = fit(images), fit(images)  # Dropout draws in every step
    assert content(first) == content(second)
    assert content(fit(images, seed=1)) != content(first)
    assert mg.random.get_state() == before


def test_trainings_in_threads_do_not_meet(images):
    recipes = {"tiny": TINY, "quick": "quick"}
    alone = {name: content(fit(images, recipe)) for name, recipe in recipes.items()}
    found = {}

    def work(name, place):
        found[name, place] = content(fit(images, recipes[name]))

    threads = [threading.Thread(target=work, args=(name, place)) for place in range(2) for name in recipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {(name, place): alone[name] for place in range(2) for name in alone}


def test_it_works_in_an_asyncio_loop(images):
    async def both():
        here = fit(images)
        return here, await asyncio.to_thread(fit, images)

    here, there = asyncio.run(both())
    assert content(here) == content(there)


def test_a_run_goes_on_bit_for_bit(images):
    whole = fit(images, steps=7)
    run = fit(images, steps=3)
    assert run.resume(steps=4) is run
    assert run.step == 7
    assert len(run.metrics) == 7
    assert content(run) == content(whole)
    again = dcgan.load(run.path)
    with pytest.raises(dcgan.UserError, match=r"has 7 steps already, of 7 wanted.*run.resume\(steps=400\)"):
        again.resume()
    assert again.resume(steps=1).step == 8


def test_arrays_lie_in_the_directory_of_the_run_which_may_be_moved(images, tmp_path):
    run = fit(images / np.float32(255), value_range=(0, 1), out=tmp_path / "a")
    assert np.array_equal(np.load(run.path / "images.npy")[..., 0], images)
    (tmp_path / "a").rename(tmp_path / "b")
    moved = dcgan.load(tmp_path / "b").resume(steps=2)
    assert content(moved) == content(fit(images, steps=5))
    assert '"data": "images.npy"' in (tmp_path / "b" / "config.json").read_text()
    assert train.main(["--resume", str(tmp_path / "b"), "--steps", "6"]) == 0


def test_a_temporary_run_lives_as_long_as_its_object(images, tmp_path):
    run = fit(images)
    folder = run.path
    assert folder.is_dir()
    assert "temporary" in run._repr_html_()
    kept = fit(images).save(tmp_path / "deep" / "kept")
    assert kept.path == tmp_path / "deep" / "kept"
    assert kept.resume(steps=1).step == 4
    del run
    gc.collect()
    assert not folder.parent.exists()
    del kept
    gc.collect()
    assert dcgan.load(tmp_path / "deep" / "kept").step == 4
    with pytest.raises(dcgan.UserError, match="save .*kept: it exists already"):
        fit(images).save(tmp_path / "deep" / "kept")


def test_a_child_process_leaves_the_temporary_directory_alone(images):
    run = fit(images)
    child = os.fork()
    if child == 0:
        run._finalizer()
        os._exit(0)
    os.waitpid(child, 0)
    assert run.path.is_dir()


def test_a_temporary_directory_goes_once_the_run_is_saved(images, tmp_path):
    run = fit(images)
    folder = run.path
    with pytest.raises(TypeError, match=r"run.save\(path\) keeps it"):
        copy.copy(run)
    for inside in (folder / "a", folder.parent / "a"):
        with pytest.raises(dcgan.UserError, match="it lies in the run's own directory"):
            run.save(inside)
    run.save(tmp_path / "kept")
    assert not folder.exists()
    assert copy.copy(run).sample(2).numpy().tolist() == run.sample(2).numpy().tolist()
    with pytest.raises(dcgan.UserError, match="it lies in the run's own directory"):
        run.save(tmp_path / "kept" / "deep" / "er")


def test_a_run_does_not_depend_on_the_current_directory(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(images, out="run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(run.metrics) == 3
    assert run.resume(steps=1).step == 4


def test_a_run_whose_directory_has_gone_says_so(run):
    run.sample(2)
    run.path.rename(run.path.parent / "moved")
    for use in (lambda: run.metrics, lambda: run.vitals, run.evaluate, run.report, run.resume):
        with pytest.raises(dcgan.UserError, match="has gone: the run's directory was moved or removed"):
            use()


def test_a_generator_alone_has_no_run(run, tmp_path, monkeypatch):
    file = run.export(tmp_path / "alone.safetensors")
    with pytest.raises(dcgan.UserError, match="statistics='batch': expected one of running, recalibrated"):
        run.export(tmp_path / "b.safetensors", statistics="batch")
    alone = dcgan.load(file)
    assert alone.sample(3).numpy().tolist() == run.sample(3).numpy().tolist()
    uses = (
        lambda: alone.metrics,
        lambda: alone.vitals,
        alone.report,
        alone.resume,
        lambda: alone.save(tmp_path / "a"),
    )
    for use in uses:
        with pytest.raises(dcgan.UserError, match="alone.safetensors is a generator alone, without a run"):
            use()
    digits = {split: mnist.images(split)[:200] for split in ("train", "test")}
    labels = mnist.labels("test")[:200]
    monkeypatch.setattr(mnist, "images", lambda split="train": digits[split])
    monkeypatch.setattr(mnist, "labels", lambda split="train": labels)
    before = sorted(tmp_path.iterdir())
    assert alone.evaluate(count=100).about == "the test images of MNIST"
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(dcgan.UserError, match=r"alone.safetensors: expected --out DIR"):
        evaluate.main([str(file), "--count", "100"])


def test_to_look_at_a_run_moves_no_random_state(run):
    mg.manual_seed(5)
    before = mg.random.get_state()
    run.sample(2)
    run.sample(2, statistics="batch")
    run.interpolate(1, 2)
    run.generator()
    run.discriminator()
    run._repr_html_()
    run.evaluate(count=100)
    assert mg.random.get_state() == before


def test_threads_may_draw_from_one_run(run):
    alone = {how: run.sample(8, statistics=how).numpy() for how in ("batch", "running")}
    found = []

    def work(how):
        found.extend((how, run.sample(8, statistics=how).numpy()) for _ in range(20))

    threads = [threading.Thread(target=work, args=(how,)) for how in (*alone, *alone)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(np.array_equal(images, alone[how]) for how, images in found)


def test_one_image_of_a_recipe_with_batch_statistics_has_others(images):
    run = fit(images, statistics="batch")
    first, many, again = run.sample(1), run.sample(5), run.sample(1)
    assert np.array_equal(first.numpy(), again.numpy())
    assert not np.array_equal(first.numpy()[0], many.numpy()[0])
    assert np.array_equal(first.numpy(), run.sample(1, statistics="recalibrated").numpy())


def test_a_callback_sees_each_step_and_may_stop_the_run(images):
    seen = []

    def callback(state):
        seen.append((state.step, state.line.loss_d))
        state.sample(2)
        if state.step == 3:
            state.stop()

    run = fit(images, steps=6, callbacks=[callback])
    assert run.step == 3
    losses = [line.loss_d for line in run.metrics]
    assert seen == [(step, pytest.approx(loss)) for step, loss in zip((1, 2, 3), losses, strict=True)]
    assert content(run.resume()) == content(fit(images, steps=6))


def test_what_a_callback_raises_ends_the_run_which_is_kept(images, tmp_path):
    def callback(state):
        if state.step == 2:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fit(images, steps=6, out=tmp_path / "run", callbacks=[callback])
    assert dcgan.load(tmp_path / "run").step == 2
    with pytest.raises(LookupError, match="mine") as raised:
        fit(images, steps=6, callbacks=[callback])
    (note,) = raised.value.__notes__
    kept = Path(
        re.fullmatch(r"The run so far is kept until this program ends: dcgan.load\('(.*)'\)", note)[1]
    )
    assert dcgan.load(kept).step == 2
    shutil.rmtree(kept.parent)


def test_a_run_that_fails_further_on_says_how_far_it_came(images):
    def callback(state):
        if state.step == 5:
            raise LookupError("mine")

    run = fit(images)
    with pytest.raises(LookupError, match="mine"):
        run.resume(steps=6, callbacks=[callback])
    assert run.step == len(run.metrics) == 5
    with pytest.raises(dcgan.UserError, match="--data nothing"):
        run.resume(steps=6, images="nothing")
    assert run.step == 5


def test_a_callback_asks_for_images_in_their_range(images):
    wrong = [{"count": 0}, {"count": 2.5}, {"count": "a"}, {"seed": -1}, {"count": 10**9}]

    def callback(state):
        for arguments in wrong:
            with pytest.raises(dcgan.UserError, match="expected an integer"):
                state.sample(**arguments)

    fit(images, steps=1, callbacks=[callback])

    def missing(state):
        Path("nowhere").read_bytes()

    with pytest.raises(FileNotFoundError, match="nowhere"):  # not taken for a file of the run
        fit(images, callbacks=[missing])


def test_an_interrupt_keeps_and_returns_the_run(images):
    def callback(state):
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    run = fit(images, steps=6, callbacks=[callback])
    assert run.step in (2, 3)  # a signal comes up when it does
    assert signal.getsignal(signal.SIGINT) is before
    assert content(run.resume()) == content(fit(images, steps=6))


def test_a_second_interrupt_is_raised(images, tmp_path, monkeypatch):
    from dcgan import console

    times = iter(range(0, 1000, 10))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(times)))

    def twice(self, *_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("nothing was raised")

    monkeypatch.setattr(training.StepLog, "record", twice)
    with pytest.raises(KeyboardInterrupt):
        fit(images, steps=6, out=tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_callback_of_ctrl_c_stops_the_run(images):
    def callback(state):
        raise KeyboardInterrupt

    assert fit(images, steps=6, callbacks=[callback]).step == 1


def test_a_run_that_diverges_is_an_error_with_what_is_left(images):
    with pytest.raises(dcgan.RunDiverged, match=r"at step \d+ loss_d.* is not finite.*smaller lr_") as raised:
        fit(images, "quick", steps=50, lr_generator=1e30)
    assert raised.value.run is None
    with pytest.raises(dcgan.RunDiverged, match="last good checkpoint") as raised:
        fit(images, "quick", steps=50, lr_generator=1e30, sample_every=1, sample_early=1)
    left = raised.value.run
    same = fit(images, "quick", steps=left.step, lr_generator=1e30, sample_every=1, sample_early=1)
    assert left.sample(4).numpy().tolist() == same.sample(4).numpy().tolist()


def test_samples_are_evaluated_on_the_way(images):
    run = fit(images, every=2)
    best = dcgan.load(run.path, weights="best")
    assert best.step == 2
    seen = []
    run.resume(steps=2, every=1, callbacks=[lambda state: seen.append(state.step)])
    assert seen == [4, 5]
    lines = (run.path / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 3, 4, 5]
    assert dcgan.load(best.export(run.path.parent / "best-alone.safetensors")).step == 2


def test_a_run_begins_with_the_weights_of_another(images, run):
    further = fit(None, init_from=run, out=run.path.parent / "further")
    assert f'"run": "{run.path.resolve()}"' in (further.path / "config.json").read_text()
    assert content(further) != content(run)
    run.resume(steps=3)
    older = dcgan.load(checkpoint.older(run.path)[0])
    again = fit(None, init_from=older, out=run.path.parent / "again")
    assert '"step": 3' in (again.path / "config.json").read_text()
    assert content(again) == content(fit(None, init_from=older.named, out=run.path.parent / "by-name"))
    with pytest.raises(dcgan.UserError, match="init_from=.*@quick.*it holds a generator alone"):
        fit(images, "quick", init_from=dcgan.load("@quick"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "quik"}, "did you mean quick"),
        ({"recipe": 3}, "recipe: expected a preset's name, a file or a Preset, got int"),
        ({"steps": 0}, "steps=0: expected an integer of at least 1"),
        ({"epochs": 0}, "epochs=0: expected an integer of at least 1"),
        ({"steps": "many"}, "steps='many': expected an integer of at least 1"),
        ({"steps": -1}, "steps=-1: expected an integer of at least 1"),
        ({"images": np.ma.masked_less(np.zeros((9, 28, 28)), 1)}, "images: MaskedArray is no array.*mask"),
        ({"max_memory": "1G"}, "max_memory='1G': expected an integer"),
        ({"device": 3}, "device=3: expected the name of a device"),
        ({"init_from": 3}, "init_from=3: expected a path"),
        ({"out": 3}, "out=3: expected a path"),
        ({"lr": 1e-3}, "unknown field 'lr': did you mean lr_generator"),
        ({"device": "cuda9"}, "--device cuda9: expected one of cpu, gpu"),
        ({"callbacks": print}, "callbacks=<built-in function print>: expected a list of functions"),
        ({"callbacks": [3]}, r"callbacks=\[3\]: expected a list of functions"),
        ({"every": 0}, "every=0: expected an integer of at least 1"),
        ({"batch_size": 1000}, "40 images are less than a batch of 1000"),
        ({"value_range": (1, 0)}, "expected the lower number first"),
        ({"images": np.zeros((3, 3))}, r"its shape is \(3, 3\): expected \(n, H, W\)"),
        ({"images": [np.zeros((3, 3)), np.zeros((4, 4))]}, "images: list is no array of one shape"),
        ({"images": np.zeros((9, 28, 28), complex)}, "its numbers are complex128"),
        ({"images": np.full((9, 28, 28), "a")}, "its numbers are <U1"),
        ({"images": "nothing"}, "--data nothing: expected mnist"),
        ({"init_from": "nowhere"}, "no checkpoint at nowhere"),
    ],
)
def test_a_mistake_is_an_error_with_the_commands_text_and_leaves_nothing(
    images, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setattr(fitting.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(dcgan.UserError, match=message):
        dcgan.fit(**{"recipe": "quick", "images": images, "steps": 3, "batch_size": 8, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_the_typed_fields_are_those_of_a_recipe_but_for_fits_own():
    fields = typing.get_type_hints(Fields)
    own = set(inspect.signature(dcgan.fit).parameters)
    assert set(fields) == set(SETTABLE) - own
    several = {"generator": Sequence[Layer], "discriminator": Sequence[Layer], "z_shape": Sequence[int]}
    assert fields == {name: several.get(name, typing.get_type_hints(Preset)[name]) for name in fields}


def test_a_taken_directory_is_refused(run, images):
    with pytest.raises(dcgan.UserError, match="it exists already"):
        fit(images, out=run.path)


def test_recipes_may_be_values_and_files(images, tmp_path):
    preset = dcgan.presets.get("quick", ema_decay=0.5)
    assert fit(images, preset).preset.ema_decay == 0.5
    (tmp_path / "mine.toml").write_text('base = "quick"\nema_decay = 0.25\n')
    assert fit(images, tmp_path / "mine.toml").preset.name == "mine"


# -- what is drawn -------------------------------------------------------------------------------------


def test_samples_are_those_of_the_command(run, tmp_path):
    out = tmp_path / "a.png"
    assert sample.main([str(run.path), "--count", "6", "--seed", "3", "--out", str(out)]) == 0
    grid = run.sample(6, seed=3).grid()
    assert out.read_bytes() == grid._repr_png_()
    assert np.array_equal(np.asarray(Image.open(out)), grid.numpy()[..., 0])
    assert grid.save(tmp_path / "folder" / "b.png").read_bytes() == out.read_bytes()
    first = run.sample(6, seed=3)
    assert np.array_equal(run.sample(z=first.z).numpy(), first.numpy())
    assert np.array_equal(run.sample(z=first.z[2]).numpy()[0], first.numpy()[2])


def test_images_are_a_sequence(run, tmp_path):
    images = run.sample(6, seed=3)
    assert images.shape == (6, 28, 28, 1)
    assert images.numpy().dtype == np.uint8
    assert len(images) == 6
    assert np.array_equal(images[1].numpy(), images.numpy()[1])
    assert np.array_equal(images[2:4].numpy(), images.numpy()[2:4])
    assert np.array_equal(images[2:4].z, images.z[2:4])
    assert [picture.shape for picture in images] == [(28, 28, 1)] * 6
    assert np.array_equal(np.asarray(images), images.numpy())
    assert images[0].enlarged(3).shape == (84, 84, 1)
    with Image.open(io.BytesIO(images[0]._repr_png_())) as shown:  # one alone would be too small to see
        assert np.array_equal(np.asarray(shown), images[0].enlarged(5).numpy()[..., 0])
    assert images.grid(2, 3, scale=1).shape == (2 * 30 + 2, 3 * 30 + 2, 1)
    assert images.grid(rows=1, scale=1).shape == (32, 6 * 30 + 2, 1)
    images.numpy()[:] = 0
    assert images.numpy().any()  # a copy was changed
    assert {path.name for path in images.save_each(tmp_path / "each").iterdir()} == {
        *(f"{i}.png" for i in range(6)),
        "z.npy",
    }
    with pytest.raises(dcgan.UserError, match="6 images do not fit into a grid of 1x2"):
        images.grid(1, 2)
    with pytest.raises(dcgan.UserError, match="scale=0: expected an integer from 1 to 100"):
        images.grid(scale=0)
    for scale in (1.5, 101):
        with pytest.raises(dcgan.UserError, match=f"scale={scale}: expected an integer"):
            images.grid(scale=scale)
        with pytest.raises(dcgan.UserError, match=f"scale={scale}: expected an integer"):
            images.save_each(tmp_path / "other", scale=scale)
    assert not (tmp_path / "other").exists()
    for nothing in (images[:0].grid, images[:0].animation):
        with pytest.raises(dcgan.UserError, match="of no images: expected one or more"):
            nothing()
    with pytest.raises(TypeError):
        images[[1, 2]]
    assert images[1] in images
    assert images[1] != images[2]
    with pytest.raises(dcgan.UserError, match="save_each .*each: it exists already"):
        images.save_each(tmp_path / "each")
    with pytest.raises(dcgan.UserError, match=r"save .*a\.txt: expected a name that ends in"):
        images[0].save(tmp_path / "a.txt")


def test_a_walk_is_that_of_the_command(run, tmp_path):
    walk = run.interpolate("3/2", 5, frames=4)
    assert len(walk) == 5
    assert np.array_equal(walk[0].numpy(), run.sample(3, seed=3)[2].numpy())
    assert (
        interpolate.main(
            [str(run.path), "--between", "3/2", "5", "--frames", "4", "--out", str(tmp_path / "a.gif")]
        )
        == 0
    )
    animation = walk.animation()
    assert (tmp_path / "a.gif").read_bytes() == animation.save(tmp_path / "b.gif").read_bytes()
    assert "data:image/gif;base64," in animation._repr_html_()
    assert walk.animation(seconds=2).seconds == 2
    with pytest.raises(dcgan.UserError, match=r"seconds=0.01: expected 0.1 to 600"):
        walk.animation(seconds=0.01)
    for names in ((), ("3",)):
        with pytest.raises(dcgan.UserError, match="expected two or more"):
            run.interpolate(*names)
    with pytest.raises(dcgan.UserError, match="'a': expected SEED or SEED/INDEX"):
        run.interpolate("a", "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count=0: expected an integer from 1 to 10000"),
        ({"count": 10_001}, "count=10001: expected"),
        ({"count": 2.0}, "count=2.0: expected"),
        ({"seed": -1}, "seed=-1: expected an integer of at least 0"),
        ({"z": np.zeros((2, 3))}, r"z: it holds float64 \(2, 3\); expected floats \(n, 16\)"),
        ({"z": [[1, 2], [3]]}, "z: list is no array of one shape"),
        ({"z": np.full((2, 16), np.nan)}, "z: it holds numbers that are not finite"),
        ({"statistics": "none"}, "statistics='none': expected one of batch, running, recalibrated"),
        ({"count": 1, "statistics": "batch"}, "one image alone is no batch"),
    ],
)
def test_a_wrong_argument_of_sample_is_told(run, arguments, message):
    with pytest.raises(dcgan.UserError, match=message):
        run.sample(**arguments)


def test_little_memory_is_respected(run):
    with pytest.raises(dcgan.UserError, match="--max-memory"):
        dcgan.load(run.path, max_memory=1000)
    with pytest.raises(dcgan.UserError, match="weights='first': expected one of last, best, ema"):
        dcgan.load(run.path, weights="first")


# -- a run ---------------------------------------------------------------------------------------------


def test_a_run_says_what_it_is(run):
    assert (run.step, run.epoch, run.preset.name, run.device) == (3, 1, "quick", "cpu")
    assert repr(run) == f"<Run 'quick' after step 3, in {run.path}>"
    html = run._repr_html_()
    assert str(run.path) in html
    assert "data:image/png;base64," in html
    generator, discriminator = run.generator(), run.discriminator()
    x = generator(mg.tensor(run.sample(4).z))
    assert x.shape == (4, 1, 28, 28)
    assert discriminator(x).shape == (4, 1)


def test_metrics_and_vitals_are_those_of_the_files(run):
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert len(run.metrics) == len(lines) == 3
    assert len(run.vitals) == 1


def test_an_evaluation_is_that_of_the_command(run, tmp_path, capsys):
    found = run.evaluate(count=100)
    written = (run.path / "evaluation.json").read_bytes()
    assert evaluate.main([str(run.path), "--count", "100", "--out", str(tmp_path / "e")]) == 0
    assert (tmp_path / "e" / "evaluation.json").read_bytes() == written
    assert found.count == 100
    with pytest.raises(dcgan.UserError, match="--count 3: expected 100"):
        run.evaluate(count=3)
    with pytest.raises(dcgan.UserError, match="statistics='none': expected one of"):
        run.evaluate(count=100, statistics="none")
    assert (
        run.evaluate(count=100, out=tmp_path / "other", statistics="recalibrated").statistics
        == "recalibrated"
    )
    assert {path.name for path in (tmp_path / "other").iterdir()} == {"evaluation.json", "evaluation.png"}
    assert (run.path / "evaluation.json").read_bytes() == written
    for wrong in ("a", 150.5):
        with pytest.raises(dcgan.UserError, match="count=.*: expected an integer"):
            run.evaluate(count=wrong)
    assert run.evaluate(count=np.int64(100)).count == 100


def test_a_report_is_shown_in_a_frame_without_access_to_the_notebook(run, tmp_path):
    report = run.report()
    assert report.path == run.path / "report.html"
    html = report._repr_html_()
    assert html.startswith(f'<figure style="margin: 0"><figcaption>{report.path}</figcaption><iframe ')
    assert 'sandbox="allow-scripts"' in html
    assert "&lt;!doctype html&gt;" in html
    assert run.report(tmp_path / "a.html").path == tmp_path / "a.html"


def test_a_checkpoint_in_a_run_can_be_loaded_and_gone_on_from(images, tmp_path):
    run = fit(images, steps=6, sample_every=2, out=tmp_path / "run")
    older = dcgan.load(checkpoint.older(run.path)[0])
    assert older.step == 4
    assert older.path == run.path
    assert content(older.resume(steps=2)) == content(fit(images, steps=6, sample_every=2))
    assert older.resume(steps=1).step == 7  # from the last one now
    assert len(older.vitals) == len(older.metrics) - 6 == 1
