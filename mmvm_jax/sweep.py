"""Train all combinations of methods, betas and seeds, one after the other, and compare them in one report.

    python -m mmvm_jax.sweep --config=configs/polydigits.py --workdir=runs/sweep --methods=mmvm,poe --seeds=0,1

Run the same command again to resume a sweep that was stopped. A run that fails is reported; the others continue.
"""

import contextlib

from absl import flags
from ml_collections import config_flags

from mmvm_jax.errors import UserError
from mmvm_jax.runtime import command_line

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration shared by all runs: a file, or a name, e.g. polydigits."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep: one folder per run, figures, report.")
_METHODS = flags.DEFINE_list("methods", [], "Methods; average, poe, moe and mopoe are variants of joint. [all]")
_BETAS = flags.DEFINE_list("betas", ["0.25", "1", "2.5"], "Values of config.method.beta.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Values of config.seed.")
_join = command_line.process_flags()
flags.adopt_module_key_flags(command_line)  # for --help


def work() -> None:
    """Run the command with the values of its flags."""
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise UserError(f"--config and --workdir are needed, for example: {__doc__.splitlines()[2].strip()}")
    betas, seeds = _numbers("betas", _BETAS.value, float), _numbers("seeds", _SEEDS.value, int)
    # Imported late: invalid flags must not wait for JAX.
    from mmvm_jax.artifacts.run_folder import locked
    from mmvm_jax.experiments.sweep import sweep
    from mmvm_jax.objectives.method import find_variant, variants
    from mmvm_jax.runtime import processes

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
    command_line.start(work, "run the same command again to resume", _CONFIG)


if __name__ == "__main__":
    main()
