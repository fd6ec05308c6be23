"""The notebooks: each runs from top to bottom, shows something rich, and is stored without its outputs."""

import gc
import os
import warnings
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# For the cell that is tagged "parameters", by the notebook.
SHORT = {
    "a_dcgan": "steps, more = 3, 2\nsamples = 100",
    "a_neuron": "points, steps, rate = 20, 10, 0.5",
}
RICH = {"text/html", "image/svg+xml", "image/png"}
STORED = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def run(notebook, folder):
    """Run a notebook in a folder, on the working tree; raises CellExecutionError for an error in it."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "IPYTHONDIR": str(folder / "ipython"),  # without what the user has set up
    }
    environment.pop("MPLBACKEND", None)  # the kernel has one, which draws into the notebook
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # they are Jupyter's; those of the notebook stay in its kernel
        client.execute(env=environment)
        del client
        gc.collect()  # what Jupyter leaves open warns now, and not in another test
    return notebook


def shortened(notebook, source):
    """Put other values in the cell that is tagged "parameters"; it must set the same names."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert names(source) == names(cell.source)
    cell.source = source
    return notebook


def names(source):
    return [line.partition("=")[0].strip() for line in source.splitlines() if "=" in line]


def kinds(notebook):
    """The kinds of content that the outputs have."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return {kind for output in outputs for kind in output.get("data", ())}


def written(*sources):
    """A notebook of code cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def unstripped(notebook):
    """Return what a stored notebook should not have: outputs, counts, metadata of a machine or editor."""
    found = []
    for cell in notebook.cells:
        if cell.get("outputs") or cell.get("execution_count") is not None:
            found.append(f"{cell.id}: outputs")
        if set(cell.metadata) - {"tags"}:
            found.append(f"{cell.id}: metadata {sorted(cell.metadata)}")
    rest = {key: value for key, value in notebook.metadata.items() if key != "language_info"}
    if rest != STORED or notebook.metadata.get("language_info", {"name": "python"}) != {"name": "python"}:
        found.append(f"metadata {notebook.metadata}")
    return found


def test_every_shortened_notebook_is_there():
    assert len(NOTEBOOKS) >= 3
    assert set(SHORT) <= {path.stem for path in NOTEBOOKS}


@each_notebook
def test_it_is_stored_without_outputs(path):
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert unstripped(notebook) == []


def test_outputs_that_are_stored_are_found():
    notebook = written("1", "2", "3")
    notebook.metadata = STORED
    assert unstripped(notebook) == []
    notebook.cells[0].execution_count = 1
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="2")]
    notebook.cells[2].metadata["collapsed"] = True
    notebook.metadata = STORED | {"language_info": {"name": "python", "version": "3.11.4"}}
    assert len(unstripped(notebook)) == 4


# An evaluation, which the notebook shows, takes half a minute however few samples it has.
SLOW = {"a_dcgan"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * (path.stem in SLOW)) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_it_runs_and_shows_something_rich(path, tmp_path):
    notebook = nbformat.read(path, 4)
    if path.stem in SHORT:
        shortened(notebook, SHORT[path.stem])
    run(notebook, tmp_path)
    assert kinds(notebook) & RICH


def test_an_error_in_a_cell_fails_and_the_working_tree_is_what_runs(tmp_path):
    notebook = written("import minigrad\nminigrad.__file__", "1 / 0")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(notebook, tmp_path)
    (output,) = notebook.cells[0].outputs
    assert output.data["text/plain"] == repr(str(ROOT / "minigrad" / "__init__.py"))
    assert not kinds(notebook) & RICH


def test_parameters_of_other_names_are_refused():
    notebook = written("steps = 100")
    notebook.cells[0].metadata["tags"] = ["parameters"]
    assert shortened(notebook, "steps = 2").cells[0].source == "steps = 2"
    with pytest.raises(AssertionError):
        shortened(notebook, "step = 2")
