"""Train a multimodal variational autoencoder, evaluate it and write a report.

python -m mmvm_jax.main --config=configs/polydigits.py --workdir=runs/polydigits
"""

from absl import flags
from ml_collections import config_flags

from mmvm_jax.errors import UserError
from mmvm_jax.runtime import command_line

MODES = ("train_and_evaluate", "train", "evaluate")

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration: a file, or the name of one in the package, e.g. polydigits."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, figures, report.")
_MODE = flags.DEFINE_enum("mode", MODES[0], MODES, "What to do.")
_join = command_line.process_flags()
flags.adopt_module_key_flags(command_line)  # for --help


def work() -> None:
    """Run the command with the values of its flags."""
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise UserError(f"--config and --workdir are needed, for example: {__doc__.splitlines()[2].strip()}")
    overrides = config_flags.get_override_values(flags.FLAGS[_CONFIG.name])
    command_line.check_are_read(_CONFIG.value, overrides, [_CONFIG.value.method.name])
    from mmvm_jax.experiments.run import run  # imported late: invalid flags must not wait for JAX

    _join()
    run(_CONFIG.value, _WORKDIR.value, _MODE.value, command_line.command("mmvm_jax.main"))


def main() -> None:
    """Start the command."""
    command_line.start(work, "run the same command again to resume", _CONFIG)


if __name__ == "__main__":
    main()
