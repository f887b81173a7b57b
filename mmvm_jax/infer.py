"""Uses a trained model on an .npz file: represents its examples, fills in what is missing, or makes new ones.

    python -m mmvm_jax.infer --workdir=runs/mine --task=impute --input=in.npz --output=out.npz

The input has the layout of ``mmvm_jax.data.own_data``; a modality without an array is absent from all examples. What
the output holds stands at the task's method of ``mmvm_jax.inference.predictor.Predictor``.
"""

from collections.abc import Iterator

from absl import flags

from mmvm_jax.errors import UserError
from mmvm_jax.runtime import command_line

TASKS = ("encode", "impute", "generate")

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of mmvm_jax.main.")
_TASK = flags.DEFINE_enum("task", None, TASKS, "What to do.")
_INPUT = flags.DEFINE_string("input", None, "The .npz file to read; for generate, with --given.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write.")
_MOST = 10**9
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 20, "impute: draws of what is missing.", 1, _MOST)
_KEEP_SAMPLES = flags.DEFINE_bool("keep_samples", False, "impute: writes every draw, as <name>__samples.")
_GIVEN = flags.DEFINE_list("given", [], "generate: names of the modalities of --input to start from.")
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", 100, "generate, without --given: how many.", 1, _MOST)
_SEED = flags.DEFINE_integer("seed", 0, "Of all draws.", lower_bound=0, upper_bound=2**32 - 1)
flags.adopt_module_key_flags(command_line)  # for --help


def work() -> None:
    """Does what the flags ask for."""
    folder, output = _check_flags()
    from mmvm_jax.data.rows import write_npz  # only now, so that wrong flags are answered without waiting for JAX
    from mmvm_jax.runtime.object_storage import local_copy

    with local_copy(folder, "workdir") as workdir:
        length, outputs = _start(workdir)
        write_npz(output, outputs, length)


def _check_flags() -> tuple[str, str]:
    """Return the workdir and the output; raise a ``UserError`` if flags are missing or contradict each other."""
    if _WORKDIR.value is None or _TASK.value is None or _OUTPUT.value is None:
        raise UserError(f"--workdir, --task and --output are needed, for example: {__doc__.splitlines()[2].strip()}")
    if _TASK.value == "generate" and bool(_GIVEN.value) != bool(_INPUT.value):
        raise UserError("--task=generate takes --given and --input together, or neither of them")
    if _TASK.value != "generate" and not _INPUT.value:
        raise UserError(f"--task={_TASK.value} needs --input, an .npz file with an array a modality")
    return _WORKDIR.value, _OUTPUT.value


def _start(workdir: str) -> tuple[int, Iterator[dict]]:
    """The number of examples, and their outputs block by block."""
    from mmvm_jax.data.inputs import Inputs
    from mmvm_jax.data.rows import NpzRows
    from mmvm_jax.inference.predictor import load_predictor

    rows = NpzRows(_INPUT.value, "--input") if _INPUT.value else None
    model = load_predictor(workdir)
    if rows is None:
        return _NUM_EXAMPLES.value, model.generate(_NUM_EXAMPLES.value, _SEED.value)
    inputs = Inputs(model.description, rows, _GIVEN.value)
    tasks = {
        "encode": lambda: model.encode(inputs),
        "impute": lambda: model.impute(inputs, _NUM_SAMPLES.value, _KEEP_SAMPLES.value, _SEED.value),
        "generate": lambda: model.generate_given(inputs, _SEED.value),
    }
    return inputs.length, tasks[str(_TASK.value)]()


def main() -> None:
    """Start the command."""
    command_line.start(work, "nothing was written, and the same command starts from the beginning")


if __name__ == "__main__":
    main()
