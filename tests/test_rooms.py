"""The architecture, read from the source: what a module imports, which names it uses, and how long it is."""

import io
import pathlib
import tokenize

import pytest
from importlinter.cli import lint_imports

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "mmvm_jax"
DEVICE_NAMES = {"pmap", "pmean", "psum", "axis_index", "process_index"}
MAX_LINES = 400
FILES = sorted(PACKAGE.rglob("*.py"))


def test_modules_import_only_from_their_own_room_and_those_below():
    """Keeps the contracts of ``setup.cfg``: order of the rooms, and which libraries none or only some may import."""
    assert lint_imports(config_filename=str(PACKAGE.parent / "setup.cfg"), no_cache=True) == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_runtime_knows_devices_and_files_are_short(path):
    source = path.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    names = {token.string for token in tokens if token.type == tokenize.NAME}
    assert path.parent.name == "runtime" or not names & DEVICE_NAMES
    assert len(source.splitlines()) < MAX_LINES
