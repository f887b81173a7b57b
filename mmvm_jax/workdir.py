"""The folder of one run: whose configuration it holds, whether a run may work there, and what using it takes."""

import difflib
import json
import os
import tempfile

from ml_collections import ConfigDict

from mmvm_jax.data import description
from mmvm_jax.data.description import Description
from mmvm_jax.data.pipeline import DataSet
from mmvm_jax.errors import UserError

CONFIG_FILE = "config.json"
DATA_FILE = "data.json"
EVALUATION_FILE = "evaluation.json"
TABLE_FILE = "evaluation.csv"
REPORT_FILE = "report.html"


def check(workdir: str, config) -> bool:
    """Makes sure that a run with this configuration may work in ``workdir``, before anything long begins.

    Where data lie and how a model is evaluated may differ from run to run; all else decides what is trained.

    Returns:
      Whether the folder holds the very same configuration, evaluation included.

    Raises:
      UserError: the folder cannot be written, or holds a run of another configuration.
    """
    path = os.path.join(workdir, CONFIG_FILE)
    mine, theirs = config_text(config), None
    try:
        os.makedirs(workdir, exist_ok=True)
        if os.path.exists(path):
            with open(path) as file:
                theirs = file.read()
            _check_same(workdir, theirs, mine)
        elif os.path.exists(os.path.join(workdir, "checkpoints")):
            raise UserError(f"--workdir={workdir} has checkpoints but no {CONFIG_FILE}; use another folder")
        with tempfile.TemporaryFile(dir=workdir):
            return theirs == mine
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written ({error.strerror}); use another folder") from error


def record(workdir: str, config, data: DataSet) -> None:
    """Writes the configuration, which makes ``workdir`` the folder of this run, and what its data are."""
    write(os.path.join(workdir, DATA_FILE), description.to_text(description.describe(data)))
    write(os.path.join(workdir, CONFIG_FILE), config_text(config))


def check_data(workdir: str, config, data: DataSet) -> None:
    """Raises UserError if a user's own data, of which the configuration has but the path, changed in between."""
    if config.data.name == "own_data" and os.path.exists(os.path.join(workdir, DATA_FILE)):
        theirs = read_description(workdir).fingerprint
        if theirs != data.fingerprint:
            raise UserError(
                f"--workdir={workdir} holds a run on other data (fingerprint {theirs}, now {data.fingerprint}); "
                "use another folder"
            )


def read_config(workdir: str) -> ConfigDict:
    """The configuration of the run in ``workdir``.

    Raises:
      UserError: there is none.
    """
    return ConfigDict(_with_tuples(json.loads(_read(workdir, CONFIG_FILE))))


def read_description(workdir: str) -> Description:
    """What the data of the run in ``workdir`` are.

    Raises:
      UserError: there is no run.
    """
    return description.from_text(_read(workdir, DATA_FILE))


def _read(workdir: str, name: str) -> str:
    try:
        with open(os.path.join(workdir, name), encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"--workdir={workdir} holds no run of mmvm_jax.main: no {name}") from error


def _with_tuples(values):
    """JSON has lists where a configuration has tuples."""
    if isinstance(values, dict):
        return {name: _with_tuples(value) for name, value in values.items()}
    return tuple(map(_with_tuples, values)) if isinstance(values, list) else values


def config_text(config) -> str:
    """The configuration as it is written."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def write(path: str, text: str) -> None:
    """Writes a file as a whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def _check_same(workdir: str, theirs: str, mine: str) -> None:
    try:
        old, new = _training_part(theirs), _training_part(mine)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{workdir}/{CONFIG_FILE} is damaged ({error}); use another folder") from error
    if old != new:
        changes = difflib.unified_diff(_flat(old), _flat(new), lineterm="", n=0)
        lines = [line for line in changes if line[0] in "+-" and line[:3] not in ("+++", "---")]
        raise UserError(
            f"--workdir={workdir} holds a run of another configuration; use another folder or the same "
            "configuration (- there, + asked for): " + ", ".join(lines)
        )


def _training_part(text: str) -> dict:
    """The fields that training reads: of methods and networks only the chosen ones."""
    values = json.loads(text)
    values.pop("evaluation", None)
    values.get("data", {}).pop("dir", None)
    for part in ("method", "network"):
        chosen = values[part]["name"]
        others = [name for name, value in values[part].items() if isinstance(value, dict) and name != chosen]
        for name in others:
            del values[part][name]
    return values


def _flat(values, prefix="config") -> list[str]:
    """{"a": {"b": 1}} -> ["config.a.b = 1"]."""
    if not isinstance(values, dict):
        return [f"{prefix} = {json.dumps(values)}"]
    return [line for name, value in sorted(values.items()) for line in _flat(value, f"{prefix}.{name}")]
