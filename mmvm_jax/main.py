"""Trains a multimodal variational autoencoder, evaluates it and writes a report.

    python -m mmvm_jax.main --config=configs/polydigits.py --workdir=runs/polydigits
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from mmvm_jax.errors import UserError
from mmvm_jax.progress import show_log

MODES = ("train_and_evaluate", "train", "evaluate")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, e.g. configs/polydigits.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, figures, report.")
_MODE = flags.DEFINE_enum("mode", MODES[0], MODES, "What to do.")


def main(argv: list[str]) -> None:
    """Runs what the flags ask for; a ``UserError`` becomes one line and its exit code."""
    logging.set_verbosity(logging.WARNING)  # the libraries'; ours is next
    show_log()
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]!r} is no flag; flags begin with --")
        if _CONFIG.value is None or _WORKDIR.value is None:
            raise UserError(f"--config and --workdir are needed, for example:{__doc__.splitlines()[2]}")
        from mmvm_jax.run import run  # only now, so that wrong flags are answered without waiting for JAX

        run(_CONFIG.value, _WORKDIR.value, _MODE.value)
    except UserError as error:
        _stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        _stop("stopped; the same command goes on from the last checkpoint", 1)


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the flags; anything wrong with them, the configuration's fields included, is one line."""
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.keys()  # a file that could not be read shows only now
        return rest
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, UserError) as error:
        _stop(_one_line(error, argv), 2)


def _one_line(error: Exception, argv: list[str]) -> str:
    """What went wrong, from the several lines that the library makes of it."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    lines = [line.strip() for line in str(error.args[0] if error.args else error).splitlines() if line.strip()]
    if isinstance(error, OSError):
        paths = [argument.partition("=")[2] for argument in argv if argument.startswith("--config=")]
        return f"--config={''.join(paths[-1:])} cannot be read: {lines[-1]}"
    if isinstance(error, (AttributeError, KeyError)):
        return f"the configuration has no field {'. '.join(lines)}"
    if any(line.startswith("Traceback") for line in lines):  # an error inside the configuration's own file
        return f"--config: {lines[-1]}"
    return " ".join(lines)


def _stop(message: str, code: int) -> None:
    print(f"mmvm_jax: error: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
