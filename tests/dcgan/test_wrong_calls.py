"""Wrong command lines: each ends with exit code 2 and one sentence that says what was meant, or expected."""

import re

import pytest

from dcgan import console
from dcgan.__main__ import main

TOML = "base = 'quick'\n"

# The command line, the content of mine.toml, and the message.
CALLS = [
    ("trian", "there is no command 'trian': did you mean train?"),
    ("Train", "there is no command 'Train': did you mean train?"),
    ("import_weights", "did you mean import-weights?"),
    ("frobnicate", "expected one of train, list, sample"),
    ("train --preset quik", "unknown preset 'quik': did you mean quick?"),
    ("train --preset Quick", "did you mean quick?"),
    ("train --preset dcgan", "unknown preset 'dcgan': expected one of flux, quick"),
    ("train quick", "unexpected argument 'quick': did you mean --preset quick?"),
    ("train digits", "unexpected argument 'digits'; dcgan train --help"),
    ("train --lr 0.1", "did you mean --set lr_generator=0.1 and --set lr_discriminator=0.1?"),
    ("train --learning-rate=1", "did you mean --set lr_generator=1 and --set lr_discriminator=1?"),
    ("train --grid 4", "did you mean --set grid_rows=4 or --set grid_columns=4?"),
    ("train --batch_size 4", "did you mean --batch-size?"),
    ("train --pre quick", "unknown option --pre: did you mean --preset?"),
    ("train --preset=", "unknown preset ''"),
    ("train --set loss=bcee", "did you mean bce?"),
    ("train --set lr_generator=fast", "expected a value of type float, such as 0.0002"),
    ("train --preset .", "--preset .: a folder without config.json"),
    ("sample --run r --out x.png", "the run is given without an option: dcgan sample RUN"),
    ("list quick", "unexpected argument 'quick': did you mean --show quick?"),
    ("train --dataset x", "unknown option --dataset: did you mean --data?"),
    ("train --image-size 64", "did you mean --set image_size=64?"),
    ("train --ngf 32", "did you mean --set ngf=32?"),
    ("train --latent-dim 32", "did you mean --set nz=32?"),
    ("train --output x", "unknown option --output: did you mean --out?"),
    ("train -o x", "unknown option -o: did you mean --out?"),
    ("train --epoch 3", "unknown option --epoch: did you mean --epochs?"),
    ("train --batch 3", "unknown option --batch: did you mean --batch-size?"),
    ("train --step 3", "unknown option --step: did you mean --steps?"),
    ("train --checkpoint 5", "unknown option --checkpoint: did you mean --checkpoint-every?"),
    ("train --verbose", "unknown option --verbose; dcgan train --help lists the options"),
    ("train --steps 0", "argument --steps: expected an integer of at least 1, got '0'"),
    ("train --steps", "argument --steps: expected one argument"),
    ("train --set lr=0.1", "unknown field 'lr': did you mean lr_generator or lr_discriminator?"),
    ("train --set learning_rate=1", "did you mean lr_generator or lr_discriminator?"),
    ("train --set imagesize=32", "unknown field 'imagesize': did you mean image_size?"),
    ("train --set name=mine", "name can't be replaced: a recipe in a file may have another"),
    ("train --set loss=hinge", "expected one of bce_with_logits, bce, bce_epsilon, or one that a plugin"),
    ("train --set generator=[Densse(3)]", "Densse(3) is no layer: did you mean Dense?"),
    ("train --set seed", "--set seed: expected FIELD=VALUE"),
    ("train --device tpu", "--device tpu: expected one of cpu, gpu, or one that a plugin registers"),
    ("train --data minst", "did you mean mnist?"),
    ("train --plugin none.py", "--plugin none.py: no such file"),
    ("train --plugin mine.toml", "--plugin mine.toml: expected a Python file"),
    (
        "train --plugin broken.py",
        "--plugin broken.py: it can't be run: ZeroDivisionError: division by zero, line 2",
    ),
    ("train --preset none.toml", "--preset none.toml: no such file"),
    ("train --preset broken.py", "--preset broken.py: name a recipe in it, too, as broken.py:NAME"),
    ("train --preset empty.py:MINE", "MINE is not in it; its recipes: none"),
    ("train --preset bad.toml", "--preset bad.toml: unknown field 'lr': did you mean lr_generator"),
    ("train --preset part.toml", "it lacks generator, discriminator, step: give them, or base"),
    ("train --resume none", "no checkpoint at none: expected a run directory or a checkpoint file"),
    ("train --resume none --init-from none", "argument --init-from: not allowed with argument --resume"),
    ("train --init-from none", "no checkpoint at none"),
    ("train --log wandb", "argument --log: invalid choice: 'wandb'"),
    ("sample", "the following arguments are required: run"),
    ("sample none --out x.png", "no checkpoint at none"),
    ("sample none", "expected --out FILE"),
    ("sample none --output x.png", "unknown option --output: did you mean --out?"),
    ("sample none -n 5", "unknown option -n: did you mean --count?"),
    ("sample none more --out x.png", "unexpected argument 'more'; dcgan sample --help"),
    ("sample none --out x.bmp", "--out x.bmp: expected a name that ends in"),
    ("sample none --out x.png --count 0", "argument --count: expected an integer of at least 1"),
    ("sample @quik --out x.png", "no generator of the package is called '@quik': did you mean @quick?"),
    ("sample @flux --out x.png", "no generator of the package is called '@flux': expected @quick"),
    ("sample @quick --out x.png --weights best", "--weights best: @quick has one set of weights"),
    (
        "train --resume @quick",
        "which sample, interpolate, export and evaluate take; expected a run's directory",
    ),
    ("train --init-from @quick", "argument --init-from: '@quick' names a trained generator of the package"),
    ("evaluate @quick", "@quick: expected --out DIR: where to write evaluation.json and evaluation.png"),
    ("report @quick", "argument run: '@quick' names a trained generator of the package"),
    ("animate @quick", "argument run: '@quick' names a trained generator of the package"),
    ("export @quick --out x.png", "--out x.png: expected a name that ends in .onnx or .safetensors"),
    ("export @quick --out best.safetensors", "a run's checkpoints are called so"),
    ("animate none", "none: expected a run's directory or its checkpoint file"),
    ("animate none --fps 3", "unknown option --fps: did you mean --seconds?"),
    ("evaluate none --count 5", "--count 5: expected 100 to"),
    ("report none --out x.pdf", "expected a name that ends in .html"),
    ("list --show quik", "unknown preset 'quik': did you mean quick?"),
    ("bench --presets quik", "unknown preset 'quik': did you mean quick?"),
    ("import-weights --preset quick --generator x.pt --out r", "a .pt file is a pickle"),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(TOML)
    (tmp_path / "bad.toml").write_text(f"{TOML}lr = 0.1\n")
    (tmp_path / "part.toml").write_text("seed = 3\n")
    (tmp_path / "broken.py").write_text("x = 1\nx / 0\n")
    (tmp_path / "empty.py").write_text("")
    return tmp_path


def test_there_are_forty():
    assert len(CALLS) >= 40


@pytest.mark.parametrize(("line", "message"), CALLS, ids=[line for line, _ in CALLS])
def test_a_wrong_call_says_what_was_meant(place, capsys, line, message):
    before = sorted(place.iterdir())
    name = f"dcgan {line.split()[0]}"
    with pytest.raises(SystemExit) as end:
        console.run_command(lambda _: main(line.split()), name)
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert re.fullmatch(r"dcgan[^\n]*: [^\n]+\n", said.err)
    assert message in said.err
    assert sorted(place.iterdir()) == before
