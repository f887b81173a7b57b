"""The order of the rooms, which ``setup.cfg`` gives."""

from importlinter.cli import lint_imports


def test_modules_import_only_from_their_own_room_and_those_below():
    assert lint_imports(config_filename="setup.cfg", no_cache=True) == 0
