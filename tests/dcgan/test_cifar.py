"""CIFAR's binary files, alone and in folders; and its pickles, which nothing opens."""

import pickle

import numpy as np
import pytest
from PIL import Image

from dcgan import presets
from dcgan.data import cifar, idx, sources
from dcgan.errors import UserError
from dcgan.evaluation import comparison

BATCHES = [f"data_batch_{i}.bin" for i in range(1, 6)]


def pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)


def records(images, *labels):
    """The content of a file: for each image the labels, then its planes of red, green and blue."""
    return b"".join(bytes(labels) + b"".join(image[..., c].tobytes() for c in range(3)) for image in images)


def wrote(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def cifar_10(place, count=2):
    """The files as the archive leaves them; the images in their order."""
    images = [pixels(count, seed) for seed in range(5)]
    for name, part in zip(BATCHES, images, strict=True):
        wrote(place / name, records(part, 9))
    wrote(place / "test_batch.bin", records(pixels(count, 7), 0))
    wrote(place / "batches.meta.txt", b"airplane\n")
    wrote(place / "readme.html", b"<html>")
    return np.concatenate(images)


def complaint(name):
    with pytest.raises(UserError) as told:
        sources.load(str(name), 32, 3)
    assert str(told.value).startswith(f"--data {name}: ")
    return str(told.value).removeprefix(f"--data {name}: ")


@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_folder_gives_the_five_training_files_in_their_order(tmp_path, above):
    place = tmp_path / "data" / "cifar-10-batches-bin"
    images = cifar_10(place)
    named = (place, *place.parents)[above]
    found = sources.load(str(named), 32, 3)
    assert np.array_equal(found.images, images)
    shown = (place / BATCHES[0]).relative_to(named)
    assert found.notes == [f"10 images of {shown} to data_batch_5.bin, 32 x 32 RGB, 0 as black, 255 as white"]


def test_one_file_alone_is_read_whatever_its_name(tmp_path):
    cifar_10(tmp_path)
    for name, seed in (("data_batch_3.bin", 2), ("test_batch.bin", 7)):
        assert np.array_equal(sources.load(str(tmp_path / name), 32, 3).images, pixels(2, seed))
    other = wrote(tmp_path / "mine.BIN", records(pixels(3), 0))
    assert np.array_equal(sources.load(str(other), 32, 3).images, pixels(3))


def test_records_with_two_labels_are_of_cifar_100(tmp_path):
    place = tmp_path / "cifar-100-binary"
    wrote(place / "train.bin", records(pixels(4), 19, 99))
    wrote(place / "test.bin", records(pixels(2, 1), 0, 0))
    for name in (tmp_path, place, place / "train.bin"):
        assert np.array_equal(sources.load(str(name), 32, 3).images, pixels(4))
    assert np.array_equal(sources.load(str(place / "test.bin"), 32, 3).images, pixels(2, 1))


def test_the_labels_tell_a_size_that_fits_both(tmp_path):
    ten, hundred = np.zeros((3074, 3073), np.uint8), np.zeros((3073, 3074), np.uint8)
    hundred[:, :2], hundred[:, 2:] = (15, 60), 250
    ten[:, 1:] = 250
    for name, content in (("a.bin", ten), ("b.bin", hundred)):
        found = cifar.read(wrote(tmp_path / name, content.tobytes()))
        assert found.shape == (len(content), 32, 32, 3)
        assert np.all(found == 250)
    hundred[0, 1] = 100
    assert complaint(wrote(tmp_path / "c.bin", hundred.tobytes())) == (
        "record 1 has the label 15; expected 0 to 9 in CIFAR-10; "
        "record 1 has the label 100; expected 0 to 99 in CIFAR-100"
    )


@pytest.mark.parametrize("size", [0, 1, 3072, 3073 * 2 - 1, 3073 + 3074])
def test_other_sizes_are_refused(tmp_path, size):
    path = wrote(tmp_path / "data_batch_1.bin", bytes(size))
    expected = "expected a multiple of 3073 (CIFAR-10) or of 3074 (CIFAR-100)"
    words = f"{size} bytes; {expected}: the labels and 32 x 32 pixels of red, green and blue"
    assert complaint(path) == words
    cifar_10(tmp_path / "all")
    wrote(tmp_path / "all" / "data_batch_4.bin", bytes(size))
    assert complaint(tmp_path / "all") == f"data_batch_4.bin: {words}"


def test_labels_that_none_has_are_refused(tmp_path):
    path = wrote(tmp_path / "a.bin", records(pixels(2), 3) + records(pixels(1), 10))
    assert complaint(path) == "record 3 has the label 10; expected 0 to 9 in CIFAR-10"
    path = wrote(tmp_path / "b.bin", records(pixels(2), 19, 100))
    assert complaint(path) == "record 1 has the label 100; expected 0 to 99 in CIFAR-100"


def test_missing_files_are_named(tmp_path):
    cifar_10(tmp_path)
    (tmp_path / "data_batch_2.bin").unlink()
    (tmp_path / "data_batch_5.bin").unlink()
    (tmp_path / "data_batch_5.bin").symlink_to("/none/data_batch_5.bin")
    expected = "expected data_batch_1.bin to data_batch_5.bin, or name one alone"
    assert complaint(tmp_path) == f"no data_batch_2.bin, data_batch_5.bin; {expected}"


def test_too_large_a_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "MAX_BYTES", 3073)
    path = wrote(tmp_path / "a.bin", records(pixels(2), 3))
    assert complaint(path) == "6146 bytes: expected 3073 at most"


def test_a_file_of_another_kind_named_train_is_no_set(tmp_path):
    wrote(tmp_path / "train.bin", bytes(100))
    assert "no image in it or in its subfolders, but other files (1 .bin)" in complaint(tmp_path)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_pickles_are_refused_by_name_and_never_opened(tmp_path, name, protocol):
    place = tmp_path / "ROOT" / "cifar-10-batches-py"
    path = wrote(place / name, pickle.dumps(Trap(tmp_path / "sprung"), protocol))
    words = "Python pickles are never opened, since they can run anything. Get the binary version of CIFAR-10"
    assert complaint(path).startswith(words)
    assert complaint(place).startswith(f"{name}: {words}")
    assert complaint(place.parent).startswith(f"cifar-10-batches-py/{name}: {words}")
    assert not (tmp_path / "sprung").exists()


def test_pickles_of_other_names_are_known_by_how_they_begin(tmp_path):
    content = pickle.dumps({"data": 1}, 2)
    words = "Python pickles are never opened"
    assert words in complaint(wrote(tmp_path / "cifar-100-python" / "train", content))
    assert words in complaint(tmp_path)
    assert words in complaint(wrote(tmp_path / "a.pkl", content))
    assert words in complaint(wrote(tmp_path / "cifar-10-python.tar.gz", b"\x1f\x8b"))
    wrote(tmp_path / "other" / "train", b"text")
    assert "no image in it" in complaint(tmp_path / "other")


def test_pictures_beside_pickles_are_read(tmp_path):
    wrote(tmp_path / "batches.meta", pickle.dumps(1))
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    assert len(sources.load(str(tmp_path), 32, 3).images) == 1


def test_the_binary_version_beside_pickles_is_read(tmp_path):
    wrote(tmp_path / "cifar-10-batches-py" / "data_batch_1", pickle.dumps(1))
    images = cifar_10(tmp_path / "cifar-10-batches-bin")
    assert np.array_equal(sources.load(str(tmp_path), 32, 3).images, images)


def test_cifar_and_another_set_in_one_folder_are_told(tmp_path):
    cifar_10(tmp_path)
    wrote(tmp_path / "train-images-idx3-ubyte", bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 9]))
    assert complaint(tmp_path) == (
        "it holds 2 sets (train-images-idx3-ubyte, data_batch_1.bin): name the folder or file of one"
    )
    assert sources.load(f"fashion-mnist:{tmp_path}", 1, 1).images.tolist() == [[[[9]]]]


def test_evaluation_takes_cifar(tmp_path):
    images = cifar_10(tmp_path / "cifar-10-batches-bin", count=8)
    real = comparison.real_images(str(tmp_path), presets.get("flowers", ngf=4, ndf=4))
    assert sorted(image.tobytes() for image in real.training) == sorted(image.tobytes() for image in images)
    assert (len(real.reference), len(real.floor)) == (20, 20)
