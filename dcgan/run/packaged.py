"""The trained generators of the package: "@quick" names one where a run is expected.

Each is two files in dcgan/pretrained: `quick.safetensors`, a checkpoint of the generator alone, and
`quick.json`, its evaluation.
"""

from pathlib import Path

from ..errors import UserError, did_you_mean

FOLDER = Path(__file__).parents[1] / "pretrained"
MARK = "@"  # how their names begin
COMMANDS = "sample, interpolate, export and evaluate"  # that take them


def is_named(run: Path) -> bool:
    """Whether a run is named as a generator of the package.

    A file or folder of that very name comes first.
    """
    return run.name == str(run) and run.name.startswith(MARK) and not run.exists()


def known() -> list[str]:
    """Return the names of the generators, such as "@quick"."""
    return sorted(MARK + path.stem for path in FOLDER.glob("*.safetensors"))


def file_of(run: Path) -> Path:
    """Return the checkpoint file that a run is read from: that of the package, or the run's own path.

    Raises UserError for a name that begins with "@" and is not known.
    """
    if not is_named(run):
        return run
    name, names = str(run), known()
    if name not in names:
        expected = did_you_mean(name, names) or f": expected {' or '.join(names)}"
        raise UserError(f"no generator of the package is called {name!r:.60}{expected}")
    return FOLDER / f"{name.removeprefix(MARK)}.safetensors"
