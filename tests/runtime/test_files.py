"""Files that appear as a whole or not at all."""

import pytest

from mmvm_jax.runtime.files import replacing, write_text


def test_a_file_takes_the_place_of_the_old_one_only_when_it_is_complete(tmp_path):
    path = tmp_path / "file.txt"
    write_text(str(path), "first é")
    with pytest.raises(ZeroDivisionError), replacing(str(path)) as temporary:
        with open(temporary, "w") as file:
            file.write("half")
        assert path.read_text(encoding="utf-8") == "first é"
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "first é" and list(tmp_path.iterdir()) == [path]
    write_text(str(path), "second")
    assert path.read_text() == "second" and list(tmp_path.iterdir()) == [path]
