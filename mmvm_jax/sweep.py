"""Train all combinations of methods, betas and seeds, one after the other, and compare them in one report.

    python -m mmvm_jax.sweep --config=configs/polydigits.py --workdir=runs/sweep --methods=mmvm,poe --seeds=0,1

Run the same command again to resume a sweep that was stopped. A run that fails is reported; the others continue.
Several processes with the same command, for example one per core or GPU, share the runs among them.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from mmvm_jax.errors import UserError
from mmvm_jax.runtime import command_line

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration shared by all runs: a file, or a name, e.g. polydigits."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep: one folder per run, figures, report.")
_METHODS = flags.DEFINE_list(
    "methods", None, "Methods; the aggregations of joint have their own names. [config.sweep.methods, all if empty]"
)
_BETAS = flags.DEFINE_list("betas", None, "Values of config.method.beta. [config.sweep.betas]")
_SEEDS = flags.DEFINE_list("seeds", None, "Values of config.seed. [config.sweep.seeds]")
_RESULTS = flags.DEFINE_list(
    "results", [], "Tables like sweep.csv of runs made elsewhere, also by other software. They are shown, not repeated."
)
_KEEP = flags.DEFINE_bool("keep_checkpoints", True, "Keep the checkpoints of runs after their evaluation.")
_join = command_line.process_flags()
flags.adopt_module_key_flags(command_line)  # for --help


def work() -> None:
    """Run the command with the values of its flags."""
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise UserError(f"--config and --workdir are needed, for example: {__doc__.splitlines()[2].strip()}")
    plan = _CONFIG.value.sweep
    betas = _numbers(_BETAS, plan.betas, "config.sweep.betas", float)
    seeds = _numbers(_SEEDS, plan.seeds, "config.sweep.seeds", int)
    # Imported late: invalid flags must not wait for JAX.
    from mmvm_jax.experiments.sweep import sweep
    from mmvm_jax.objectives.method import find_variant, variants
    from mmvm_jax.report.table import read_results
    from mmvm_jax.runtime import processes

    _join()
    methods = _METHODS.value or list(plan.methods) or list(variants())
    names = [find_variant(method)[0] for method in methods]
    command_line.check_are_read(_CONFIG.value, config_flags.get_override_values(flags.FLAGS[_CONFIG.name]), names)
    elsewhere = [result for path in _RESULTS.value for result in read_results(path)]
    with processes.folder_to_write(_WORKDIR.value) as workdir:
        command = command_line.command("mmvm_jax.sweep")
        sweep(_CONFIG.value, workdir, methods, betas, seeds, command, elsewhere, _KEEP.value)


def _numbers(flag: flags.FlagHolder, planned: Sequence, field: str, kind: type) -> list:
    """Return the numbers of a flag, or of the configuration's field where the flag is not given."""
    name, values = (field, planned) if flag.value is None else (f"--{flag.name}", flag.value)
    what = "integers" if kind is int else "numbers"
    try:
        numbers = [kind(value) for value in dict.fromkeys(values)]
    except ValueError as error:
        raise UserError(f"{name}={','.join(map(str, values))}; allowed: {what}, separated by commas") from error
    if not numbers:
        raise UserError(f"{name} is empty; allowed: one or more {what}, separated by commas")
    return numbers


def main() -> None:
    """Start the command."""
    command_line.start(work, "run the same command again to resume", _CONFIG)


if __name__ == "__main__":
    main()
