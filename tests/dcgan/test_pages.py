"""The pages for readers: each command and code block runs, each link and picture leads somewhere."""

import importlib
import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

import minigrad as mg
from dcgan import __main__ as program
from dcgan import models, presets
from dcgan.data import mnist

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for path in (
        ROOT / "README.md",
        ROOT / "dcgan" / "README.md",
        ROOT / "dcgan" / "pretrained" / "README.md",
        ROOT / "minigrad" / "README.md",
        ROOT / ".github" / "CONTRIBUTING.md",
    )
    if path.exists()  # an sdist has no .github
]
MOST_WORDS = 1100  # of the first page
TINY = ("--steps", "2", "--batch-size", "8", "--set", "grid_rows=2", "--set", "grid_columns=2")
# Options that make a command short, by its name. They come last, so they win.
SHORT = {
    "train": TINY,
    "evaluate": ("--count", "100"),
    "bench": ("--presets", "tensorflow-baseline", "--rounds", "1", "--no-pytorch"),
    "minigrad.bench": ("--rounds", "1", "--no-pytorch"),
    "minigrad.gradcheck": ("--operation", "tanh"),
}
NARROW = ("--set", "ngf=4", "--set", "ndf=4")  # of the recipes with networks of any width
NOT_RUN_HERE = ("pip", "pytest", "ruff", "mypy")  # .ci/run does


def tokens(page, kind):
    """Return the tokens of a kind in a page, those within paragraphs and tables included."""
    found = []
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(page.read_text(encoding="utf-8")):
        found += [t for t in (token, *(token.children or ())) if t.type == kind]
    return found


def commands(page):
    """Return the command lines of a page, each as its words."""
    lines = [line for block in tokens(page, "code_block") for line in block.content.splitlines()]
    within = [
        t.content for t in tokens(page, "code_inline") if t.content.startswith(("python -m ", "dcgan "))
    ]
    lines += [line for line in within if len(line.split()) > 3]  # else it only names the command
    found = [shlex.split(line, comments=True) for line in lines]
    return [words for words in found if words and words[0] in ("python", "dcgan", *NOT_RUN_HERE)]


def anchors(page):
    """Return the names by which the headings of a page can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_of_gpu(words):
    return bool({"gpu", "--gpu"} & {*words}) or words[1:2] == ["tests/gpu_smoke.py"]


@pytest.fixture
def place(clean, tmp_path, monkeypatch):
    """A directory with the pictures that the pages' commands name; 300 digits in MNIST's place."""
    digits = mnist.images("test")[:300], mnist.labels("test")[:300]
    monkeypatch.setattr(mnist, "images", lambda split="train": digits[0])
    monkeypatch.setattr(mnist, "labels", lambda split="train": digits[1])
    (tmp_path / "FOLDER").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (70, 40, 40, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / "FOLDER" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_module(words):
    """Run `python -m MODULE ...` in this process, made short."""
    name, arguments = words[2], words[3:]
    short = () if "--operation" in arguments else SHORT.get(name, ())
    package = importlib.import_module(name)
    command = importlib.import_module(f"{name}.__main__") if hasattr(package, "__path__") else package
    return command.main([*arguments, *short])


def run_dcgan(words):
    """Run `dcgan ...` in this process, made short; what it prints goes into the file behind ">"."""
    command, _, target = shlex.join(words).partition(" '>' ")
    arguments = shlex.split(command)[1:]
    asks = {"--list", "--help", "--explain-step"} & set(arguments)
    short = () if asks else SHORT.get(arguments[0], ())
    if arguments[0] == "train" and {"flowers", "pytorch"} & set(arguments):
        short += NARROW
    if "--every" in arguments:
        short += ("--every", "1")
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            code = program.main([*arguments, *short])
    except SystemExit as end:  # of --help
        code = end.code
    if target and "~" not in target:
        Path(target).write_text(printed.getvalue())
    return code


@pytest.mark.parametrize("page", [
    pytest.param(page, id=str(page.relative_to(ROOT)), marks=[] if page.parent == ROOT else pytest.mark.slow)
    for page in PAGES
])  # fmt: skip
def test_every_command_of_a_page_runs(page, place):
    shutil.copy(ROOT / "examples" / "own_parts.py", place)
    if "import-weights" in page.read_text(encoding="utf-8"):
        generator, _ = models.build(presets.get("pytorch"))
        mg.save(generator.state_dict(), "g.safetensors")
    seen = commands(page)
    assert seen
    run_dcgan(shlex.split("dcgan train --preset quick --out runs/quick"))
    for words in seen:
        if words[0] in NOT_RUN_HERE or is_of_gpu(words):
            continue
        if words[0] == "dcgan":
            assert run_dcgan(words) == 0, shlex.join(words)
        elif words[1] == "-m":
            assert run_module(words) == 0, shlex.join(words)
        else:
            assert (ROOT / words[1]).exists() or words[1] == "examples/...", shlex.join(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_programs_and_extras_that_a_page_names_are_there(page):
    script = (ROOT / ".ci" / "run").read_text() if (ROOT / ".ci" / "run").exists() else None
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = page.read_text(encoding="utf-8")
    for extra in re.findall(r"'\.\[([\w-]+)\]'", text):
        assert extra in extras
    for words in commands(page):
        if script is not None and words[0] in ("pytest", "ruff", "mypy"):
            assert shlex.join(words) in script


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page, tmp_path):
    code = [t.content for t in tokens(page, "fence") if t.info == "python"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(code)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for printed in re.findall(r"print\(.*\)  # (\(.*\))$", "\n".join(code), re.MULTILINE):
        assert printed in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_and_picture_of_a_page_exists(page):
    targets = [t.attrs["href"] for t in tokens(page, "link_open")]
    targets += [t.attrs["src"] for t in tokens(page, "image")]
    assert targets
    for target in targets:
        if target.startswith("https://"):
            continue
        name, _, anchor = str(target).partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() and ".github" in path.parts and not (ROOT / ".github").exists():
            continue  # an sdist
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_the_first_page_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_the_first_page_names_every_example_and_recipe():
    text = PAGES[0].read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("[0-9]*.py"):
        assert f"`{path.name}`" in text
    for name in presets.PRESETS:
        assert f"`{name}`" in text
