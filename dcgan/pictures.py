"""Pictures out: grids of images, rows, curves. All are written whole or not at all."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from minigrad.figures import drawn_figure, saved_figure
from minigrad.serialize import write_whole

from .errors import UserError
from .steps import StepLine

JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}  # colours are as sharp as brightness
# Of "exact": the colours of pixels that nobody sees stay, too.
WEBP: dict[str, Any] = {"lossless": True, "exact": True}
# By the ending of a file's name: the format's name and its options, as Pillow has them.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"optimize": True}),
    ".jpg": ("JPEG", JPEG),
    ".jpeg": ("JPEG", JPEG),
    ".webp": ("WEBP", WEBP),
}
ENDINGS = tuple(FORMATS)
MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # pixels that such a file can have
ENCODED = {"PNG": 9, "JPEG": 17, "WEBP": 46}  # bytes of a pixel, from a grid to its file, measured
CURVES = (
    ("loss_d", "D"),
    ("loss_g", "G"),
    ("d_x", "D(x), real"),
    ("d_g_z1", "D(G(z)), fake, in the step's first half"),
    ("d_g_z2", "D(G(z)), fake, in its second half"),
)
LOSSES_SIZE = (9, 6.5)  # inches
MAX_SCALE = 100  # times that a pixel is enlarged, at the most
MAX_GRID_WIDTH = 560  # pixels: small pictures are enlarged up to this width, to be looked at
MAX_STRIP_WIDTH = 1120  # the same for wide ones
MARKED = 60  # points of a curve; with fewer each has a dot, so that one alone is seen
FIGURE = 12  # bytes of a pixel that matplotlib draws


def to_bytes(images: NDArray[Any]) -> NDArray[Any]:
    """Images (N, C, H, W) from -1 to 1 as bytes (N, H, W, C) from 0 to 255, rounded; no number is grey."""
    return np.rint((np.nan_to_num(images).clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


def grid_size(rows: int, columns: int, size: tuple[int, int], gap: int = 2) -> tuple[int, int]:
    """Return the height and the width of a grid of images of `size`, as `grid` makes it."""
    return rows * (size[0] + gap) + gap, columns * (size[1] + gap) + gap


def grid(images: NDArray[Any], rows: int, columns: int, gap: int = 2) -> NDArray[Any]:
    """Images (N, H, W, C) of bytes in rows and columns, `gap` dark pixels apart; (height, width, C).

    Row by row; places that no image is left for stay dark.
    """
    n, height, width, channels = images.shape
    canvas = np.full((*grid_size(rows, columns, (height, width), gap), channels), 32, np.uint8)
    for i in range(min(n, rows * columns)):
        y, x = (
            gap + place * (size + gap)
            for place, size in zip(divmod(i, columns), (height, width), strict=True)
        )
        canvas[y : y + height, x : x + width] = images[i]
    return canvas


def enlarged(picture: NDArray[Any], most: int = MAX_GRID_WIDTH) -> NDArray[Any]:
    """A small picture (H, W, C) with every pixel repeated, as often as `most` pixels allow."""
    return repeated(picture, times_within(most, picture.shape[:2]))


def times_within(most: int, size: tuple[int, ...]) -> int:
    """Return how often the pixels of a picture of `size` (H, W) can be repeated within `most`: 1 or more."""
    return max(1, most // max(size))


def repeated(picture: NDArray[Any], times: int) -> NDArray[Any]:
    """A picture (H, W, C) with every pixel `times` as wide and as high."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def save_side_by_side(grids: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Grids (H, W, C) of one size beside each other, each under its title, as a PNG file."""
    height, width = next(iter(grids.values())).shape[:2]
    side = 5.0  # inches
    with saved_figure(path, (side * len(grids), side * height / width + 0.4)) as figure:
        for axes, (title, picture) in zip(figure.subplots(1, len(grids)), grids.items(), strict=True):
            show(axes, picture, title)


def save_rows(rows: Mapping[str, Sequence[NDArray[Any]]], path: Path) -> None:
    """Rows of images (H, W, C), each beside its name, the last of each apart, as `save_picture` does."""
    columns = max(len(images) for images in rows.values())
    with drawn_figure((1.1 * (columns + 1.5), 1.15 * len(rows))) as (figure, content):
        all_axes = figure.subplots(len(rows), columns + 1, squeeze=False)
        for axes in all_axes.flat:
            axes.axis("off")
        for line, (name, images) in zip(all_axes, rows.items(), strict=True):
            line[0].text(1.0, 0.5, name, ha="right", va="center", transform=line[0].transAxes)
            *members, last = images
            for axes, image in [*zip(line[1:], members, strict=False), (line[-1], last)]:
                show(axes, image, "")
            line[-1].set_title("mean" if members else "", fontsize="small", pad=2)
    with Image.open(content, formats=["PNG"]) as drawn:
        save_picture(np.asarray(drawn.convert("RGB")), path)


def save_png(picture: NDArray[Any], path: Path) -> None:
    """Bytes (H, W, C), C from 1 to 4, as a PNG file."""
    write_whole(path, png(picture))


def save_picture(picture: NDArray[Any], path: Path) -> None:
    """Bytes (H, W, C), C from 1 to 4, as a PNG, JPEG or WebP file, by the ending of its name.

    PNG and WebP keep every byte. JPEG, of a high quality, has no alpha: it is laid on white.
    Raises UserError as `check_still` does.
    """
    check_still(path, picture.shape[:2])
    write_whole(path, _encoded(picture, path.suffix.lower()))


def png(picture: NDArray[Any]) -> bytes:
    """Return bytes (H, W, C), C from 1 to 4, as the content of a PNG file."""
    return _encoded(picture, ".png")


def _encoded(picture: NDArray[Any], ending: str) -> bytes:
    name, options = FORMATS[ending]
    image = opaque(picture) if name == "JPEG" else _image(picture)
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def check_still(path: Path, size: tuple[int, ...]) -> None:
    """Check that a file of the format that its name says can hold a picture of `size` (H, W).

    Raises UserError if it can't, or if Pillow was built without the format.
    """
    name, _ = FORMATS[path.suffix.lower()]
    if max(size) > MAX_SIDE.get(name, max(size)):
        raise UserError(
            f"{path}: {size[1]} x {size[0]} pixels are too many for {path.suffix}, which takes "
            f"{MAX_SIDE[name]:,} a side at most: make it smaller, or choose a name that ends in .png"
        )
    if name != "PNG" and not features.check({"JPEG": "jpg", "WEBP": "webp"}[name]):
        raise UserError(
            f"{path}: this build of Pillow can't write {path.suffix}: choose a name that ends in .png"
        )


def memory_of_still(path: Path, size: tuple[int, int]) -> int:
    """Return the bytes that a picture of `size` (H, W) takes until it is in the file of that name."""
    return ENCODED[FORMATS[path.suffix.lower()][0]] * size[0] * size[1]


def memory_of_figure(images: int, shape: tuple[int, int, int]) -> int:
    """Return the bytes of images (H, W, C) that matplotlib draws."""
    return FIGURE * images * shape[0] * shape[1]


def save_losses(lines: Sequence[StepLine], path: Path) -> None:
    """The losses, and D(x) and D(G(z)), over the steps, as a PNG file."""
    with saved_figure(path, LOSSES_SIZE) as figure:
        _draw_losses(figure, lines)


def losses_png(lines: Sequence[StepLine]) -> bytes:
    """Return the content of the PNG file that `save_losses` writes."""
    with drawn_figure(LOSSES_SIZE) as (figure, content):
        _draw_losses(figure, lines)
    return content.getvalue()


def _draw_losses(figure: Any, lines: Sequence[StepLine]) -> None:
    above, below = figure.subplots(2, 1, sharex=True)
    steps = [line.step for line in lines]
    names, colours = dict(CURVES), {key: f"C{i}" for i, (key, _) in enumerate(CURVES)}
    marker = {"marker": "o", "markersize": 3} if len(lines) < MARKED else {}
    for axes, keys in ((above, ("loss_d", "loss_g")), (below, ("d_x", "d_g_z1", "d_g_z2"))):
        for key in keys:
            values = np.array([getattr(line, key) for line in lines], np.float64)  # None is NaN
            axes.plot(steps, values, color=colours[key], alpha=0.2, linewidth=0.7)
            axes.plot(
                *_smoothed(steps, values), color=colours[key], label=names[key], linewidth=1.6, **marker
            )
        explain_if_empty(axes, "No number is finite")
        axes.grid(alpha=0.25)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(keys), frameon=False)
    above.set_ylabel("loss")
    below.set_ylabel("mean probability of being real")
    below.set_ylim(-0.02, 1.02)
    below.set_xlabel("step")


def explain_if_empty(axes: Any, why: str) -> None:
    """Write a sentence into the middle of matplotlib's axes if no curve in them has a point to be seen."""
    if not any(np.isfinite(line.get_ydata()).any() for line in axes.get_lines()):
        # On white, so that no line of the grid runs through it.
        box = {"facecolor": "white", "edgecolor": "none", "pad": 3}
        place = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, why, color="0.35", bbox=box, **place)


def show(axes: Any, picture: NDArray[Any], title: str) -> None:
    """Draw bytes (H, W, C) into matplotlib's axes, pixel by pixel."""
    axes.imshow(np.asarray(opaque(picture).convert("RGB")), interpolation="nearest")
    axes.set_title(title)
    axes.axis("off")


def _image(picture: NDArray[Any]) -> Image.Image:
    """Bytes (H, W, C) as an image: grey, grey and alpha, RGB or RGBA by their channels."""
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def opaque(picture: NDArray[Any]) -> Image.Image:
    """The picture as grey or RGB, alpha laid on white."""
    image = _image(picture)
    if picture.shape[2] in (1, 3):
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert(
        "L" if picture.shape[2] == 2 else "RGB"
    )


def _smoothed(steps: Sequence[float], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Means over a window of a fiftieth of the curve, where the window fits."""
    window = max(1, len(values) // 50)
    kernel = np.full(window, 1 / window)
    middle = np.convolve(np.asarray(steps, np.float64), kernel, "valid")
    return middle, np.convolve(values, kernel, "valid")
