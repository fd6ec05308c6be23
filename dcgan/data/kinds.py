"""Names of files: which are taken for images, and which are passed over."""

from pathlib import PurePath

from PIL import Image

# Pillow knows these, but can't decode them, or only by another program (Ghostscript); IPTC files hold others.
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
OF_MACOS = "__MACOSX"  # the folder that macOS adds to an archive, with a small file beside each of its own


def known() -> list[str]:
    """Return the kinds of files that are taken for images, by Pillow's names."""
    Image.init()
    return [kind for kind in Image.OPEN if kind not in NO_PICTURES]


def endings() -> set[str]:
    """Return the endings of files that are taken for images, such as ".jpg"."""
    ours = set(known())
    return {ending for ending, kind in Image.registered_extensions().items() if kind in ours}


def ending(name: str) -> str:
    """Return the ending of a file's name in small letters; "" if it has none."""
    return PurePath(name).suffix.lower()


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over because of its name."""
    return name.startswith(".") or name == OF_MACOS
