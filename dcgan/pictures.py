"""Pictures out: grids of images, curves, animations. All are written whole or not at all."""

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minigrad.figures import saved_figure
from minigrad.serialize import write_whole

from .data.channels import MODES
from .errors import UserError
from .files import plainfile
from .recipe import memory
from .steps import StepLine

CURVES = (
    ("loss_d", "D"),
    ("loss_g", "G"),
    ("d_x", "D(x), real"),
    ("d_g_z1", "D(G(z)), fake, in the step's first half"),
    ("d_g_z2", "D(G(z)), fake, in its second half"),
)
MAX_GRID_WIDTH = 560  # pixels: small pictures are enlarged up to this width, to be looked at
MAX_STRIP_WIDTH = 1120  # the same for wide ones
MAX_ANIMATION_WIDTH = 320  # the same for animations, whose files grow with their area
GIF_BYTES = 1_900_000  # of 25 frames, and in proportion of more
LAST_FRAME = 2000  # milliseconds
FRAME = re.compile(r"[0-9]{8,12}\.png")  # a frame's name: its step
MAX_FRAME_PIXELS = 2**24
MAX_GIF_FRAMES = 60  # an MP4 file, which keeps only what changes, has all frames
ENCODER = 16 * 2**20  # bytes of an encoder of animations
FIGURE = 12  # bytes of a pixel that matplotlib draws


def to_bytes(images: NDArray[Any]) -> NDArray[Any]:
    """Images (N, C, H, W) from -1 to 1 as bytes (N, H, W, C) from 0 to 255, rounded; no number is grey."""
    return np.rint((np.nan_to_num(images).clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


def grid(images: NDArray[Any], rows: int, columns: int, gap: int = 2) -> NDArray[Any]:
    """Images (N, H, W, C) of bytes in rows and columns, `gap` dark pixels apart; (height, width, C).

    Row by row; places that no image is left for stay dark.
    """
    n, height, width, channels = images.shape
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 32, np.uint8)
    for i in range(min(n, rows * columns)):
        y, x = (
            gap + place * (size + gap)
            for place, size in zip(divmod(i, columns), (height, width), strict=True)
        )
        canvas[y : y + height, x : x + width] = images[i]
    return canvas


def enlarged(picture: NDArray[Any], most: int = MAX_GRID_WIDTH) -> NDArray[Any]:
    """A small picture (H, W, C) with every pixel repeated, as often as `most` pixels allow."""
    times = max(1, most // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def save_side_by_side(grids: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Grids (H, W, C) of one size beside each other, each under its title, as a PNG file."""
    height, width = next(iter(grids.values())).shape[:2]
    side = 5.0  # inches
    with saved_figure(path, (side * len(grids), side * height / width + 0.4)) as figure:
        for axes, (title, picture) in zip(figure.subplots(1, len(grids)), grids.items(), strict=True):
            show(axes, picture, title)


def save_rows(rows: Mapping[str, Sequence[NDArray[Any]]], path: Path) -> None:
    """Rows of images (H, W, C), each beside its name, the last image of each apart, as a PNG file."""
    columns = max(len(images) for images in rows.values())
    with saved_figure(path, (1.1 * (columns + 1.5), 1.15 * len(rows))) as figure:
        all_axes = figure.subplots(len(rows), columns + 1, squeeze=False)
        for axes in all_axes.flat:
            axes.axis("off")
        for line, (name, images) in zip(all_axes, rows.items(), strict=True):
            line[0].text(1.0, 0.5, name, ha="right", va="center", transform=line[0].transAxes)
            *members, last = images
            for axes, image in [*zip(line[1:], members, strict=False), (line[-1], last)]:
                show(axes, image, "")
            line[-1].set_title("mean" if members else "", fontsize="small", pad=2)


def save_png(picture: NDArray[Any], path: Path) -> None:
    """Bytes (H, W, C), C from 1 to 4, as a PNG file."""
    buffer = io.BytesIO()
    _image(picture).save(buffer, "PNG", optimize=True)
    write_whole(path, buffer.getvalue())


def save_animation(frames: Sequence[NDArray[Any]], path: Path, seconds: float = 8.0) -> None:
    """Pictures (H, W, C) of one size as a GIF or an MP4 file, by its name, of about `seconds`.

    A frame is shown for 40 ms at least and half a second at most: many take longer, few less. The
    last one stays for two seconds.
    """
    pace = min(500, max(40, round(1000 * seconds / len(frames) / 10) * 10))
    if path.suffix.lower() == ".mp4":
        write_whole(path, _mp4(frames, pace))
    else:
        write_whole(path, _gif(frames, pace))


def animate(
    frames: Path,
    out: Path,
    seconds: float = 8.0,
    max_memory: int = memory.DEFAULT,
    last: int | None = None,
) -> int:
    """Write the frames of a run, in the order of their steps, as a GIF or MP4; how many it has.

    Of more than a GIF should hold some are left out, evenly; the last one never. Those after the step `last`
    are left out, too.
    Raises UserError where there is none, one can't be read, the directory or one of them is a symbolic link,
    or they take more than `max_memory` bytes.
    """
    if frames.is_symlink():
        raise UserError(f"{frames} is a symbolic link, which is not followed: expected the frames themselves")
    files = frame_files(frames, last)
    if not files:
        raise UserError(f"no frames in {frames}: expected the directory of a run that was trained")
    if out.suffix.lower() == ".gif" and len(files) > MAX_GIF_FRAMES:
        files = [files[i] for i in np.linspace(0, len(files) - 1, MAX_GIF_FRAMES).round().astype(int)]
    shown: list[NDArray[Any]] = []
    for file in files:
        shown.append(frame := _frame(file))
        if frame.shape != shown[0].shape:
            raise UserError(f"{file} is {frame.shape}: expected {shown[0].shape}, as of {files[0]}")
        if len(shown) == 1:
            needed = memory_of_animation(len(files), frame.shape, out.suffix)
            memory.check(f"animating the {len(files)} frames of {frames}", needed, max_memory)
    save_animation([enlarged(frame, MAX_ANIMATION_WIDTH) for frame in shown], out, seconds)
    return len(files)


def frame_files(folder: Path, last: int | None = None) -> list[Path]:
    """The frames of a run, up to the step `last`, in their order. Files of other names are left out."""
    frames = [path for path in plainfile.entries(folder) if FRAME.fullmatch(path.name)]
    steps = {path: int(path.stem) for path in frames}
    return sorted((path for path in frames if last is None or steps[path] <= last), key=steps.__getitem__)


def _frame(file: Path) -> NDArray[Any]:
    """One frame as bytes (H, W, C). Raises UserError where it is none, whatever the file is."""
    try:
        plainfile.check(file, file.parent)
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > MAX_FRAME_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels: more than {MAX_FRAME_PIXELS}")
            plain = image if image.mode in MODES.values() else image.convert("RGB")
            return np.atleast_3d(np.asarray(plain))
    except Exception as error:  # damaged files raise all kinds: SyntaxError, struct.error, ...
        raise UserError(f"{file} can't be read as an image: {error!s:.200}") from error


def memory_of_animation(frames: int, shape: tuple[int, int, int], ending: str) -> int:
    """Return the bytes of an animation of frames (H, W, C): as they are, enlarged, and encoded."""
    height, width, channels = shape
    times = max(1, MAX_ANIMATION_WIDTH // max(height, width))  # as `enlarged` does
    encoded = 9 if ending.lower() == ".mp4" else 3  # bytes of a pixel: RGB three times, or a palette's
    return frames * height * width * (channels + times**2 * (channels + encoded)) + ENCODER


def memory_of_figure(images: int, shape: tuple[int, int, int]) -> int:
    """Return the bytes of images (H, W, C) that matplotlib draws."""
    return FIGURE * images * shape[0] * shape[1]


def _gif(frames: Sequence[NDArray[Any]], pace: int) -> bytes:
    """The content of a GIF file, shrunk until it is no more than people like to load."""
    most = GIF_BYTES * max(1.0, len(frames) / 25)
    height, width = frames[0].shape[:2]

    def encoded(some: Sequence[NDArray[Any]], shrink: float) -> bytes:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        return _encoded_gif([_palette(frame, size) for frame in some], pace)

    # A few frames tell, in less time, where all would be far too much.
    few = frames[:: math.ceil(len(frames) / 5)]
    expected = len(encoded(few, 1.0)) * len(frames) / len(few)
    shrink = 1.0 if expected < 2 * most else 0.95 * math.sqrt(most / expected)
    while len(content := encoded(frames, shrink)) > most:
        shrink *= 0.95 * math.sqrt(most / len(content))  # the bytes go with the area
    return content


def _palette(frame: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """A frame as a GIF holds it. Colours: the 256 best for each frame, undithered, since noise does not
    compress. Greys: 64 of them, 0 and 255 included, which nobody tells from 256 and which take a third off
    the file.
    """
    image = _opaque(frame)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    if image.mode == "L":
        return image.point([value & 252 | value >> 6 for value in range(256)])
    return image.quantize(256, dither=Image.Dither.NONE)


def _encoded_gif(pictures: list[Image.Image], pace: int) -> bytes:
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        loop=0,
        optimize=True,
        duration=[*[pace] * (len(pictures) - 1), LAST_FRAME],
    )
    return buffer.getvalue()


def _mp4(frames: Sequence[NDArray[Any]], pace: int) -> bytes:
    """Return the content of an H.264 file, in which each frame is shown for `pace` milliseconds.

    Odd sides are cut by a pixel: most players want them even. One thread encodes: the pictures depend on
    the number of threads, and the file holds it.
    """
    import av  # takes half a second

    height, width = (side - side % 2 for side in frames[0].shape[:2])
    content = io.BytesIO()

    def reopen(*_: Any) -> io.BytesIO:
        """Give what is written so far to be read: "faststart" moves the index ahead of it."""
        return io.BytesIO(content.getvalue())

    with av.open(content, "w", "mp4", options={"movflags": "faststart"}, io_open=reopen) as file:
        stream = file.add_stream("libx264", Fraction(1000, pace))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, frame in enumerate([*frames, *[frames[-1]] * (LAST_FRAME // pace)]):
            pixels = np.ascontiguousarray(np.asarray(_opaque(frame).convert("RGB"))[:height, :width])
            picture = av.VideoFrame.from_ndarray(pixels, "rgb24")
            picture.pts, picture.time_base = number, Fraction(pace, 1000)
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    return content.getvalue()


def save_losses(lines: Sequence[StepLine], path: Path) -> None:
    """The losses, and D(x) and D(G(z)), over the steps, as a PNG file."""
    with saved_figure(path, (9, 6.5)) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        steps = [line.step for line in lines]
        names, colours = dict(CURVES), {key: f"C{i}" for i, (key, _) in enumerate(CURVES)}
        for axes, keys in ((above, ("loss_d", "loss_g")), (below, ("d_x", "d_g_z1", "d_g_z2"))):
            for key in keys:
                values = np.array([getattr(line, key) for line in lines], np.float64)  # None is NaN
                axes.plot(steps, values, color=colours[key], alpha=0.2, linewidth=0.7)
                axes.plot(*_smoothed(steps, values), color=colours[key], label=names[key], linewidth=1.6)
            axes.grid(alpha=0.25)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(keys), frameon=False)
        above.set_ylabel("loss")
        below.set_ylabel("mean probability of being real")
        below.set_ylim(-0.02, 1.02)
        below.set_xlabel("step")


def show(axes: Any, picture: NDArray[Any], title: str) -> None:
    """Draw bytes (H, W, C) into matplotlib's axes, pixel by pixel."""
    axes.imshow(np.asarray(_opaque(picture).convert("RGB")), interpolation="nearest")
    axes.set_title(title)
    axes.axis("off")


def _image(picture: NDArray[Any]) -> Image.Image:
    """Bytes (H, W, C) as an image: grey, grey and alpha, RGB or RGBA by their channels."""
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def _opaque(picture: NDArray[Any]) -> Image.Image:
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
