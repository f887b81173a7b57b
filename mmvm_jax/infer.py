"""Use a trained model on a file: encode its examples, impute missing modalities, or generate new examples.

    python -m mmvm_jax.infer --workdir=runs/mine --task=impute --input=in.npz --output=out.npz

The input has the layout of ``mmvm_jax.data.own_data``, in any form of ``mmvm_jax.data.sources``; a modality without an
array is absent from all examples. The methods of ``mmvm_jax.inference.predictor.Predictor`` document the outputs.

An output that ends with "/" is a folder: tables become .parquet files with their index, other arrays .npy files. Such
an output must fit in memory, which an .npz file need not.
"""

from collections.abc import Iterator, Mapping

from absl import flags

from mmvm_jax.errors import UserError
from mmvm_jax.runtime import command_line

TASKS = ("encode", "impute", "generate")

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of mmvm_jax.main.")
_TASK = flags.DEFINE_enum("task", None, TASKS, "Task to perform.")
_INPUT = flags.DEFINE_string("input", None, "The file or folder to read; for generate, only with --given.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write, or a folder, whose name ends with /.")
_MOST = 10**9
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 20, "impute: number of draws of the missing values.", 1, _MOST)
_KEEP_SAMPLES = flags.DEFINE_bool("keep_samples", False, "impute: also write every draw, as <name>__samples.")
_GIVEN = flags.DEFINE_list("given", [], "generate: modalities of --input to condition on.")
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", 100, "generate without --given: number of examples.", 1, _MOST)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all draws.", lower_bound=0, upper_bound=2**32 - 1)
flags.adopt_module_key_flags(command_line)  # for --help


def work() -> None:
    """Run the command with the values of its flags."""
    folder, output = _check_flags()
    from mmvm_jax.data.rows import write_npz  # imported late: invalid flags must not wait for JAX
    from mmvm_jax.data.sources import read_source
    from mmvm_jax.inference.predictor import load_predictor
    from mmvm_jax.runtime.object_storage import local_copy

    with local_copy(folder, "workdir") as workdir:
        source = read_source(_INPUT.value, "--input") if _INPUT.value else None
        model = load_predictor(workdir)
        length, outputs = _start(model, source)
        if output.endswith("/"):
            _write_folder(output, model, source, outputs)
        else:
            write_npz(output, outputs, length)


def _check_flags() -> tuple[str, str]:
    """Return the workdir and the output; raise a ``UserError`` if flags are missing or contradict each other."""
    if _WORKDIR.value is None or _TASK.value is None or _OUTPUT.value is None:
        raise UserError(f"--workdir, --task and --output are needed, for example: {__doc__.splitlines()[2].strip()}")
    if _TASK.value == "generate" and bool(_GIVEN.value) != bool(_INPUT.value):
        raise UserError("--task=generate takes --given and --input together, or neither of them")
    if _TASK.value != "generate" and not _INPUT.value:
        raise UserError(f"--task={_TASK.value} needs --input, a file or folder with one array per modality")
    return _WORKDIR.value, _OUTPUT.value


def _start(model, source) -> tuple[int, Iterator[dict]]:
    """Return the number of examples, and an iterator of their outputs, block by block."""
    from mmvm_jax.data.inputs import Inputs
    from mmvm_jax.data.sources import rows_of

    if source is None:
        return _NUM_EXAMPLES.value, model.generate(_NUM_EXAMPLES.value, _SEED.value)
    inputs = Inputs(model.description, rows_of(source, model.description), _GIVEN.value)
    tasks = {
        "encode": lambda: model.encode(inputs),
        "impute": lambda: model.impute(inputs, _NUM_SAMPLES.value, _KEEP_SAMPLES.value, _SEED.value),
        "generate": lambda: model.generate_given(inputs, _SEED.value),
    }
    return inputs.length, tasks[str(_TASK.value)]()


def _write_folder(output: str, model, source, outputs: Iterator[dict]) -> None:
    from mmvm_jax.data.frames import as_frames
    from mmvm_jax.data.sources import write_folder
    from mmvm_jax.inference.predictor import joined

    tables = source if isinstance(source, Mapping) else {}
    description = model.description
    write_folder(output, lambda: as_frames(tables, joined(outputs), description.columns, description.levels))


def main() -> None:
    """Start the command."""
    command_line.start(work, "nothing was written")


if __name__ == "__main__":
    main()
