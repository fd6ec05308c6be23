"""What the tests of dcgan share: a small set of digits in MNIST's place, and small runs."""

import hashlib

import numpy as np
import pytest

from dcgan import device, losses, pictures, plugins, steps, train
from dcgan.data import mnist
from dcgan.recipe import layer
from minigrad import backend


@pytest.fixture(autouse=True, scope="session")
def told():
    """The CPU's kernels are compiled, and all is said about them, before a test looks at what is said."""
    device.tell_kernels()


@pytest.fixture
def few_digits(monkeypatch):
    """200 made-up images instead of MNIST's 60,000."""
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28)).astype(np.uint8)
    monkeypatch.setattr(mnist, "images", lambda split="train": images)
    return images


@pytest.fixture
def digests(monkeypatch):
    """Put small pictures in place of a run's figures, which take most of the time of a few steps.

    The pixels are a hash of all that the figure would show.
    """

    def save(content, path):
        shown = (
            {key: value.tobytes() for key, value in content.items()} if isinstance(content, dict) else content
        )
        digest = hashlib.sha256(repr(shown).encode()).digest()
        pictures.save_png(np.frombuffer(digest, np.uint8).reshape(4, 8, 1), path)

    for name in ("pictures.save_losses", "pictures.save_side_by_side", "vitals.picture.save"):
        monkeypatch.setattr(f"dcgan.{name}", save)


@pytest.fixture
def run(few_digits, tmp_path, capsys):
    """Calls the command of training with --out in a temporary directory; gives its exit code and output."""

    def call(*arguments, out="run"):
        code = train.main([*arguments, "--out", str(tmp_path / out)])
        return code, capsys.readouterr().out

    return call


@pytest.fixture
def clean():
    """Forget, at the end, what plugins have registered; gives a function that does it at once."""
    of_the_package = (losses.LOSSES, steps.RULES, layer.KINDS, backend._factories, backend._backends)
    tables = (*of_the_package, plugins._modules, plugins._registered)
    before = [dict(table) for table in tables]

    def forget():
        for table, content in zip(tables, before, strict=True):
            table.clear()
            table.update(content)

    yield forget
    forget()
