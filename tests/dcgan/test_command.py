"""The program `dcgan`: its commands, its help, its completion; messages in a calling program."""

import logging
import subprocess
import sys
from importlib import import_module

import pytest

from dcgan import __main__ as program
from dcgan import animate, completion, console, presets, train
from dcgan.__main__ import COMMANDS, main
from dcgan.errors import UserError


def test_alone_it_lists_the_commands(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    for name, (_, what) in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, what] for line in said.splitlines())


def test_its_help_imports_no_numpy():
    code = (
        "import sys\nfrom dcgan.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print(sorted({'numpy', 'minigrad', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_its_version_is_the_engines(capsys):
    import minigrad

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dcgan {minigrad.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_parser_of_its_name(name):
    module = import_module(COMMANDS[name][0])
    parser = module.parser()
    assert parser.prog == f"dcgan {name}"
    assert not parser.allow_abbrev
    assert callable(module.main)


def test_the_module_is_the_program(tmp_path):
    command = [sys.executable, "-m", "dcgan", "trian"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dcgan: there is no command 'trian': did you mean train?\n"


def test_a_command_gets_the_rest_of_the_line(capsys):
    assert main(["list", "--show", "quick"]) == 0
    assert 'name = "quick"' in capsys.readouterr().out
    with pytest.raises(UserError, match="there is no command 'x': expected one of train, list"):
        main(["x"])


@pytest.mark.parametrize("shell", program.SHELLS)
def test_a_shell_completes_commands_options_and_recipes(shell):
    script = completion.script(shell, COMMANDS)
    for word in (*COMMANDS, "--init-from", "--statistics", *presets.PRESETS):
        assert word in script


def test_the_script_for_bash_completes(tmp_path):
    script = tmp_path / "dcgan.sh"
    script.write_text(completion.script("bash", COMMANDS))
    asked = (
        f"source {script}\nset -- $(complete -p dcgan)\nfor f; do :; done\n"
        'complete_() { COMP_WORDS=(dcgan "$@"); COMP_CWORD=$#; COMPREPLY=(); '
        "${@: 0:0} _shtab_dcgan; echo ${COMPREPLY[@]}; }\n"
        "complete_ tra\ncomplete_ train --ini\ncomplete_ train --preset fl\n"
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False)
    assert [set(line.split()) for line in done.stdout.splitlines()] == [
        {"train"},
        {"--init-from"},
        {"flux", "flux-draft", "flowers"},
    ]


# -- messages ------------------------------------------------------------------------------------------


@pytest.fixture
def quiet():
    yield
    console.be_quiet(False)


def test_quiet_prints_results_and_warnings_alone(few_digits, tmp_path, capsys, quiet):
    small = ["--preset", "quick", "--steps", "2", "--out", str(tmp_path / "run"), "--quiet"]
    assert train.main([*small, "--set", "batch_size=8", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    with pytest.raises(UserError):
        animate.main(["-q", str(tmp_path / "none")])
    assert train.main(["--list", "-q"]) == 0
    assert "flowers" in capsys.readouterr().out
    console.warn("careful")
    assert capsys.readouterr().err == "careful\n"


def test_a_calling_program_routes_the_messages(few_digits, tmp_path, capsys, monkeypatch):
    records = []

    class Kept(logging.Handler):
        def emit(self, record):
            records.append((record.levelname, record.getMessage()))

    logger = logging.getLogger("dcgan")
    monkeypatch.setattr(logger, "handlers", [Kept()])
    out = str(tmp_path / "run")
    train.main(["--preset", "quick", "--steps", "2", "--set", "batch_size=8", "--out", out])
    console.warn("100% careful")
    assert capsys.readouterr().out == ""
    assert not console.shows_progress()
    assert ("INFO", f"checkpoint {out}/checkpoint.safetensors") in records
    assert records[-1] == ("WARNING", "100% careful")
