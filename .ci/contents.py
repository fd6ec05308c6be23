"""Compare the files in a folder's sdist and wheel with those that git tracks; exit with 1 if they differ.

    python .ci/contents.py DIST

The sdist holds every tracked file but those of .ci and .github, the wheel all of the two packages. Neither
holds anything else, apart from its metadata.
"""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("minigrad/", "dcgan/")


def main() -> int:
    dist = Path(sys.argv[1])
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    tracked = set(subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines())
    licences = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license-files"]
    expected = {
        sdist: {name for name in tracked if not name.startswith((".ci/", ".github/"))} | {"PKG-INFO"},
        wheel: {name for name in tracked if name.startswith(PACKAGES)}
        | {f".dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
        | {f".dist-info/licenses/{name}" for name in licences},
    }
    found = {sdist: in_sdist(sdist), wheel: in_wheel(wheel)}
    for path in (sdist, wheel):
        for name in sorted(expected[path] - found[path]):
            print(f"{path.name}: {name} is missing")
        for name in sorted(found[path] - expected[path]):
            print(f"{path.name}: {name} is not tracked by git, or is not meant to be there")
    return int(found != expected)


def in_sdist(path: Path) -> set[str]:
    """Return the names of the files, without the folder that they all lie in."""
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if not member.isdir()}


def in_wheel(path: Path) -> set[str]:
    """Return the names of the files, those of the metadata from `.dist-info` on."""
    metadata = path.name.removesuffix("-py3-none-any.whl")
    with zipfile.ZipFile(path) as archive:
        return {name.removeprefix(metadata) for name in archive.namelist()}


if __name__ == "__main__":
    sys.exit(main())
