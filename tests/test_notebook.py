"""The notebook of the documentation runs from its first cell to its last, and fills in gaps better than the mean."""

import os
import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = pathlib.Path(__file__).resolve().parents[1] / "docs" / "clinical_tables.ipynb"


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The cells of the notebook after a run with fewer patients."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert "N = 1500" in notebook.cells[1].source
    notebook.cells[1].source = notebook.cells[1].source.replace("N = 1500", "N = 400")
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()
    return notebook.cells


def test_the_notebook_fills_in_better_than_the_mean(cells):
    table = next(cell for cell in cells if cell.source.startswith("def compare")).outputs[-1].data["text/plain"]
    errors = {line[:14].strip(): float(line.split()[-2]) for line in table.splitlines()[1:]}
    assert set(errors) == {"single entries", "whole table"} and max(errors.values()) < 0.9


def test_the_notebook_shows_pictures_and_progress_but_no_warnings(cells):
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    streams = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "examples/s" in streams and "table 'person': 1 columns categorical: stage" in streams
    assert "Warning" not in streams and "CheckpointManager" not in streams


def test_the_outputs_in_the_file_are_those_of_its_cells():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(os.path.expanduser("~") not in str(cell.outputs) for cell in code)
