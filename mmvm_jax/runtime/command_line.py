"""Shared code of the commands: invalid flags and failures are reported as one line and an exit code."""

import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict

from mmvm_jax.config import READ_BY_DATA_SETS, READ_BY_KIND
from mmvm_jax.errors import RESTART, Disconnected, UserError, first_line, is_disk_full
from mmvm_jax.runtime.progress import log, show_log
from mmvm_jax.runtime.signals import obey_termination
from mmvm_jax.versions import check_version

# XLA, imported later, logs an error for each program that it reads from the compilation cache of a CPU (JAX 0.10). Real
# errors also reach Python as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Of the installed package, or beside it in a clone.
_PACKAGE = pathlib.Path(__file__).parents[1]
_CONFIG_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
_VERBOSE = flags.DEFINE_bool("verbose", False, "Show the full traceback of an error in the program itself.")


def start(work: Callable[[], None], if_stopped: str, config: flags.FlagHolder | None = None) -> None:
    """Run a command: read the flags, then call ``work()``.

    Args:
      work: raises ``UserError`` for errors that the user can correct.
      if_stopped: what the user can do after an interruption, for the message.
      config: the flag that holds a configuration, if the command has one.
    """

    def main(argv):
        logging.set_verbosity(logging.WARNING)  # of the libraries
        show_log()
        obey_termination()
        try:
            if len(argv) > 1:
                raise UserError(f"{argv[1]!r} is not a flag; flags begin with --")
            work()
        except Disconnected as error:
            _say(str(error))
            os._exit(error.exit_code)  # a regular exit would wait for the process that has ended
        except UserError as error:
            _stop(str(error), error.exit_code)
        except KeyboardInterrupt as stop:
            print(f"mmvm_jax: {str(stop) or f'stopped; {if_stopped}'}", file=sys.stderr)
            sys.exit(RESTART)
        except Exception as error:  # an error in the program, not in the request
            if _VERBOSE.value:
                raise
            if is_disk_full(error):
                _stop(f"{first_line(error)}; make room and run the same command again to resume", 1)
            _stop(f"{type(error).__name__}: {first_line(error)} (an error in the program; --verbose shows where)", 1)

    app.run(main, flags_parser=lambda argv: _parse_flags(argv, config))


def process_flags() -> Callable[[], None]:
    """Define the flags of a command that runs as several processes; return a function that connects them."""
    address = flags.DEFINE_string("coordinator_address", None, "host:port of process 0. [detected on a cluster]")
    count = flags.DEFINE_integer("num_processes", None, "Number of processes. [detected on a cluster]")
    number = flags.DEFINE_integer("process_id", None, "Number of this process, from 0. [detected on a cluster]")

    def join() -> None:
        from mmvm_jax.runtime import environment, processes  # imported late: invalid flags must not wait for JAX

        processes.join(address.value, count.value, number.value)
        environment.describe_devices()  # raises an error if there are none
        if not processes.is_first():
            log.setLevel("WARNING")  # the first process logs for all

    return join


def check_are_read(config: ConfigDict, overrides: Mapping[str, object], methods: Collection[str]) -> None:
    """Check that the command line sets only options of the chosen methods, network and data set.

    The configuration's file may have options of others, so that it can be run with any method.

    Args:
      config: of the run.
      overrides: {field: value} set on the command line.
      methods: the methods that will be run.

    Raises:
      UserError: an option would have no effect.
    """
    chosen = {"method": set(methods), "network": {config.network.name}, "data set": {config.data.name}}
    for field, value in overrides.items():
        what, readers = _readers(field)
        if what in chosen and not chosen[what] & set(readers):
            raise UserError(
                f"--config.{field}={value} is an option of the {what} {' and '.join(readers)}, not of "
                f"{', '.join(sorted(chosen[what]))}; leave it out, or choose another {what}"
            )


def _readers(field: str) -> tuple[str, tuple[str, ...]]:
    """Return what reads an option: ("method", "network" or "data set", names), or ("", ()) if it is for all."""
    match field.split("."):
        case ["method", method, _, *_]:
            return "method", (method,)
        case ["network", network, _, *_]:
            return "network", (network, "by_kind") if network in READ_BY_KIND else (network,)
        case ["data", name] if name in READ_BY_DATA_SETS:
            return "data set", READ_BY_DATA_SETS[name]
    return "", ()


def command(module: str) -> str:
    """Return the command line that started this process, for a report."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def _parse_flags(argv: list[str], config: flags.FlagHolder | None) -> list[str]:
    """Parse the flags, including the configuration's fields. Report any error as one line and exit."""
    try:
        check_version()  # before a configuration is read, which imports the kernels
        rest = flags.FLAGS(argv if config is None else _with_config_files(argv))
        if config is not None and config.value is not None:
            config.value.keys()  # raises the error of a file that could not be read
        return rest
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, UserError) as error:
        _stop(_one_line(error, argv), 2)


def _with_config_files(argv: list[str]) -> list[str]:
    """Replace names of configurations that come with the package, such as polydigits:quicktest, by their files."""
    arguments = list(argv)
    for place, argument in enumerate(argv):
        flag, sign, value = argument.partition("=")
        if flag in ("--config", "-config") and sign:
            arguments[place] = f"{flag}={_config_file(value)}"
        elif flag in ("--config", "-config") and place + 1 < len(argv):
            arguments[place + 1] = _config_file(argv[place + 1])
    return arguments


def _config_file(value: str) -> str:
    """Return the file of a configuration given by name; anything else unchanged."""
    name, colon, variant = value.partition(":")
    if not all(part.isidentifier() for part in name.split("/")) or os.path.exists(name):
        return value
    folder = next(folder for folder in _CONFIG_FOLDERS if folder.is_dir())
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.py")}
    if name not in files:
        raise UserError(f"--config is {name!r}; allowed: a file, or one of {', '.join(sorted(files))}")
    return f"{files[name]}{colon}{variant}"


def _one_line(error: Exception, argv: list[str]) -> str:
    """Return the reason of an error in the flags, as one line, from a library's message of several lines."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    lines = [line.strip() for line in str(error.args[0] if error.args else error).splitlines() if line.strip()]
    if isinstance(error, OSError):
        paths = [argument.partition("=")[2] for argument in argv if argument.startswith("--config=")]
        return f"--config={''.join(paths[-1:])} cannot be read: {lines[-1]}"
    if isinstance(error, (AttributeError, KeyError)):
        return f"the configuration has no field {'. '.join(lines)}"
    if any(line.startswith("Traceback") for line in lines):  # an error inside the configuration file
        return f"--config: {lines[-1]}"
    return " ".join(lines)


def _stop(message: str, code: int) -> NoReturn:
    _say(message)
    sys.exit(code)


def _say(message: str) -> None:
    print(f"mmvm_jax: error: {message}", file=sys.stderr, flush=True)
