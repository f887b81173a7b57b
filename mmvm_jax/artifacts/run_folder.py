"""The folder of one run: its lock, its configuration and description of the data, and whether a run may use it."""

import contextlib
import difflib
import fcntl
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from mmvm_jax.config import base
from mmvm_jax.data import description
from mmvm_jax.data.dataset import DataSet
from mmvm_jax.data.description import Description
from mmvm_jax.errors import InUse, UserError, first_line
from mmvm_jax.runtime.files import write_text
from mmvm_jax.runtime.progress import log
from mmvm_jax.types import Modality

CONFIG_FILE = "config.json"
DATA_FILE = "data.json"
ENVIRONMENT_FILE = "environment.json"
EVALUATION_FILE = "evaluation.json"
TABLE_FILE = "evaluation.csv"
REPORT_FILE = "report.html"
_LOCK_FILE = "lock"


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[None]:
    """Create the folder, and lock it against other runs while the context is entered.

    The system releases the lock when the process ends, even if it is killed. Reading needs no lock.

    Raises:
      InUse: another process uses the folder.
      UserError: the folder cannot be written.
    """
    try:
        os.makedirs(workdir, exist_ok=True)
        file = open(os.path.join(workdir, _LOCK_FILE), "a")  # noqa: SIM115, closed below
    except OSError as error:
        raise _not_writable(workdir, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUse(
                f"--workdir={workdir}: another run is working there; wait for it, or use another folder"
            ) from error
        except OSError as error:  # some network folders cannot be locked
            log.warning("--workdir=%s cannot be locked (%s); do not start a second run there", workdir, error.strerror)
        yield


def create(workdir: str) -> None:
    """Create the folder if there is none.

    Raises:
      UserError: it cannot be written.
    """
    try:
        os.makedirs(workdir, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise _not_writable(workdir, error) from error


def check(workdir: str, config) -> bool:
    """Check, before any long work, that a run with this configuration may use ``workdir``, which must exist.

    The configuration may differ from that of the folder in the location of the data, the tracker, the intervals of logs
    and checkpoints, the evaluation, the number of skipped steps and the length of training, if annealing ends at the
    same step. The optimiser may also differ, with a warning in the log. All other fields must be equal.

    Returns:
      Whether the folder holds exactly the same configuration, including the evaluation.

    Raises:
      UserError: the folder cannot be written, or holds a run of another configuration.
    """
    path = os.path.join(workdir, CONFIG_FILE)
    mine, theirs = config_text(config), None
    try:
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                theirs = file.read()
            _check_same(workdir, theirs, mine)
        elif any(path.name.isdigit() for path in pathlib.Path(workdir, "checkpoints").glob("*")):
            raise UserError(f"--workdir={workdir} has checkpoints but no {CONFIG_FILE}; use another folder")
        with tempfile.TemporaryFile(dir=workdir):
            return theirs is not None and _completed(json.loads(theirs)) == _completed(json.loads(mine))
    except OSError as error:
        raise _not_writable(workdir, error) from error


def _not_writable(workdir: str, error: OSError) -> UserError:
    return UserError(f"--workdir={workdir} cannot be written ({error.strerror}); use another folder")


def begin(workdir: str, config, data: DataSet) -> None:
    """Write the configuration, which marks ``workdir`` as the folder of this run, and the description of its data.

    An existing configuration is kept, since it has the settings with which the run was evaluated.
    """
    write_text(os.path.join(workdir, DATA_FILE), description.to_text(description.describe(data)))
    if not os.path.exists(os.path.join(workdir, CONFIG_FILE)):
        write_text(os.path.join(workdir, CONFIG_FILE), config_text(config))


def begin_evaluation(workdir: str, config, data: DataSet) -> None:
    """Rewrite both files, and remove the report, so that its absence marks an unfinished evaluation."""
    pathlib.Path(workdir, REPORT_FILE).unlink(missing_ok=True)
    write_text(os.path.join(workdir, CONFIG_FILE), config_text(config))
    begin(workdir, config, data)


def check_data(workdir: str, config, data: DataSet, to_repair: bool = False) -> tuple[Modality, ...]:
    """Check that a user's own data, of which the configuration has only the path, have not changed since the run began.

    Args:
      workdir: of the run.
      config: of the run.
      data: its data.
      to_repair: whether a damaged description of the data is ignored, since it will be written again.

    Returns:
      The modalities of the run's model. Their ``scale`` and ``rates`` may differ if another version began the run.

    Raises:
      UserError: the data have changed.
    """
    if config.data.name != "own_data" or not os.path.exists(os.path.join(workdir, DATA_FILE)):
        return data.modalities
    try:
        theirs = read_description(workdir)
    except UserError:
        if to_repair:
            return data.modalities
        raise
    if theirs.fingerprint != data.fingerprint:
        raise UserError(
            f"--workdir={workdir} holds a run on other data (fingerprint {theirs.fingerprint}, now "
            f"{data.fingerprint}); use another folder, in which config.train.start_from={workdir} begins with its "
            "parameters"
        )
    for old, new in zip(theirs.modalities, data.modalities, strict=False):
        if (old.kind, old.columns, old.missing_entries) != (new.kind, new.columns, new.missing_entries):
            raise UserError(
                f"--workdir={workdir} holds a run in which '{old.name}' has the kind {old.kind}, not {new.kind}, or "
                f"other columns; use another folder, or config.data.kinds={old.name}={old.kind}"
            )
    return theirs.modalities


def read_config(workdir: str) -> ConfigDict:
    """Read the configuration of the run in ``workdir``.

    Raises:
      UserError: there is none, or it is damaged.
    """
    return _parsed(workdir, CONFIG_FILE, lambda text: _completed(json.loads(text)))


def _completed(values: dict) -> ConfigDict:
    """Return the configuration with defaults for the fields that an earlier version did not have."""
    config = base(values.get("imports", ()))
    with config.unlocked():
        config.update(_with_tuples(values))
    return config


def in_sweep(method: str, beta: float, seed: int | str) -> str:
    """Return the folder of a run in the folder of its sweep; seed "*" stands for all in a pattern."""
    return os.path.join(method, f"beta_{beta:g}", f"seed_{seed}")


def read_description(workdir: str) -> Description:
    """Read the description of the data of the run in ``workdir``.

    Raises:
      UserError: there is no run, or the file is damaged.
    """
    return _parsed(workdir, DATA_FILE, description.from_text)


def read_evaluation(workdir: str) -> dict[str, float]:
    """Read the metrics of the finished run in ``workdir``.

    Raises:
      UserError: there are none, or the file is damaged.
    """
    return _parsed(workdir, EVALUATION_FILE, lambda text: {name: float(v) for name, v in json.loads(text).items()})


def _parsed(workdir: str, name: str, parse: Callable):
    """Read and parse a file of the workdir; raise UserError if it is missing or damaged."""
    try:
        with open(os.path.join(workdir, name), encoding="utf-8") as file:
            return parse(file.read())
    except OSError as error:
        raise UserError(f"--workdir={workdir} holds no run of mmvm_jax.main: no {name}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(workdir, name, error) from error


def _damaged(workdir: str, name: str, error: Exception) -> UserError:
    """Return the error for a damaged file of the workdir, with the command that repairs it."""
    repair = "write it again: mmvm_jax.main --mode=evaluate with the run's own --config and --workdir"
    if name == CONFIG_FILE:
        copies = pathlib.Path(workdir, "checkpoints").glob("*/config/metadata")  # each checkpoint has one
        newest = max((copy for copy in copies if copy.parts[-3].isdigit()), key=os.path.getmtime, default=None)
        repair = f"restore it: cp {newest} {workdir}/{name}" if newest else "use another folder"
    return UserError(f"{workdir}/{name} is damaged ({first_line(error)}); {repair}", exit_code=1)


def _with_tuples(values):
    """Convert the lists of JSON to the tuples of a configuration."""
    if isinstance(values, dict):
        return {name: _with_tuples(value) for name, value in values.items()}
    return tuple(map(_with_tuples, values)) if isinstance(values, list) else values


def config_text(config) -> str:
    """Return the configuration as the text of its file."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def _check_same(workdir: str, theirs: str, mine: str) -> None:
    try:
        old, new = _training_part(theirs), _training_part(mine)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(workdir, CONFIG_FILE, error) from error
    optimizers = old.pop("optimizer", {}), new.pop("optimizer", {})
    if old != new:
        raise UserError(
            f"--workdir={workdir} holds a run of another configuration; use another folder or the same "
            "configuration (- in the folder, + requested): " + _changes(old, new)
        )
    if changes := _changes(*optimizers, "config.optimizer"):
        log.warning(
            "--workdir=%s holds a run with another optimiser (- in the folder, + from its newest checkpoint on): %s",
            workdir,
            changes,
        )


def _changes(old: dict, new: dict, prefix: str = "config") -> str:
    lines = difflib.unified_diff(_flat(old, prefix), _flat(new, prefix), lineterm="", n=0)
    return ", ".join(line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---"))


def _training_part(text: str) -> dict:
    """Return the fields that training depends on: of the chosen method, and of all networks, as they share fields."""
    values = json.loads(text)
    if missing := {"method", "network", "train"} - values.keys():
        raise LookupError(f"no {', '.join(sorted(missing))}")
    values = json.loads(config_text(_completed(values)))
    for name in ("evaluation", "tracker", "imports", "sweep"):
        values.pop(name, None)
    for place in ("dir", "path"):  # own data are known by their fingerprint
        values.get("data", {}).pop(place, None)
    method, train = values["method"], values["train"]
    for name in ("skip_not_finite", "log_every", "checkpoint_every", "start_from"):
        train.pop(name, None)
    steps, epochs = train.pop("steps"), train.pop("epochs")
    read = ("name", "beta", "anneal_beta", method["name"])
    values["method"] = {name: method[name] for name in read}
    length, unit = steps or epochs, "steps" if steps else "epochs"
    for fields in (method, method[method["name"]]):
        for name in fields:
            if name.startswith("anneal_"):
                _fix_end(fields[name], length, unit)
    values["optimizer structure"] = _state_structure(values["optimizer"])
    if values["optimizer"]["schedule"]["name"] not in ("constant", "plateau"):
        values["optimizer"]["schedule"]["length of training"] = f"{length:.9g} {unit}"
    return values


def _state_structure(optimizer: dict) -> str:
    """Return what the arrays of the optimiser's state depend on."""
    return optimizer["name"] + (" with plateau" if optimizer["schedule"]["name"] == "plateau" else "")


def _fix_end(schedule: dict, length: float, unit: str) -> None:
    """Replace fractions and cycles of a schedule by absolute steps or epochs; clear a constant schedule."""
    if schedule["shape"] == "constant":
        schedule.clear()
        return
    fraction, cycles = schedule.pop("fraction"), schedule.pop("cycles")
    period = length / cycles
    if not schedule["steps"]:
        schedule["fraction of training"] = f"{fraction * period:.9g} {unit}"
    if cycles > 1:
        schedule["period"] = f"{period:.9g} {unit}"


def _flat(values, prefix="config") -> list[str]:
    """Flatten nested fields to lines: {"a": {"b": 1}} -> ["config.a.b = 1"]."""
    if not isinstance(values, dict):
        return [f"{prefix} = {json.dumps(values)}"]
    return [line for name, value in sorted(values.items()) for line in _flat(value, f"{prefix}.{name}")]
