"""Trains methods x betas x seeds, one run after the other, and compares them in one report.

    python -m mmvm_jax.sweep --config=configs/polydigits.py --workdir=runs/sweep --methods=mmvm,poe --seeds=0,1

The same command goes on with a sweep that was stopped. A run that fails is reported and stops no other.
"""

import contextlib

from absl import flags
from ml_collections import config_flags

from mmvm_jax.errors import UserError
from mmvm_jax.runtime import command_line

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration that all runs share: a file, or a name, e.g. polydigits."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep: a folder a run, figures, report.")
_METHODS = flags.DEFINE_list("methods", [], "Methods; average, poe, moe and mopoe are those of joint. [all of them]")
_BETAS = flags.DEFINE_list("betas", ["0.25", "1", "2.5"], "Values of config.method.beta.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Values of config.seed.")
_join = command_line.process_flags()
flags.adopt_module_key_flags(command_line)  # for --help


def work() -> None:
    """Does what the flags ask for."""
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise UserError(f"--config and --workdir are needed, for example: {__doc__.splitlines()[2].strip()}")
    betas, seeds = _numbers("betas", _BETAS.value, float), _numbers("seeds", _SEEDS.value, int)
    from mmvm_jax.artifacts.run_folder import locked
    from mmvm_jax.experiments.sweep import sweep
    from mmvm_jax.objectives.method import find_variant, variants
    from mmvm_jax.runtime import processes  # only now, so that wrong flags are answered without waiting for JAX

    _join()
    methods = _METHODS.value or list(variants())
    names = [find_variant(method)[0] for method in methods]
    command_line.check_are_read(_CONFIG.value, config_flags.get_override_values(flags.FLAGS[_CONFIG.name]), names)
    with processes.folder_to_write(_WORKDIR.value) as workdir, contextlib.ExitStack() as stack:
        processes.from_first(stack.enter_context, locked(workdir))
        sweep(_CONFIG.value, workdir, methods, betas, seeds, command_line.command("mmvm_jax.sweep"))


def _numbers(flag: str, values: list[str], kind: type) -> list:
    what = "integers" if kind is int else "numbers"
    try:
        numbers = [kind(value) for value in dict.fromkeys(values)]
    except ValueError as error:
        raise UserError(f"--{flag}={','.join(values)}; allowed: {what}, separated by commas") from error
    if not numbers:
        raise UserError(f"--{flag} is empty; allowed: one or more {what}, separated by commas")
    return numbers


def main() -> None:
    """Start the command."""
    command_line.start(work, "the same command goes on from what it has saved", _CONFIG)


if __name__ == "__main__":
    main()
