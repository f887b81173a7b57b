"""Train on the nodes of a Kubernetes cluster with JobSet: one process per node; all processes train one model.

python launch/kubernetes.py --name=cub --image=IMAGE --nodes=2 --gpus=8 -- \\
    --config=configs/cub.py --workdir=/storage/cub

The flags after -- are those of mmvm_jax.main. A pod that is asked to stop saves a checkpoint first; the cluster then
starts all pods again. The workdir and config.data.dir should be under /storage, where the volume claim is mounted.
"""

import pathlib
import subprocess
import sys

import jinja2
from absl import app, flags

_NAME = flags.DEFINE_string("name", None, "Name of the run, in lower case.", required=True)
_IMAGE = flags.DEFINE_string("image", None, "Image built from launch/Dockerfile.", required=True)
_NODES = flags.DEFINE_integer("nodes", 1, "Number of nodes.", lower_bound=1)
_GPUS = flags.DEFINE_integer("gpus", 0, "GPUs per node.", lower_bound=0)
_TPUS = flags.DEFINE_integer("tpus", 0, "TPU chips per node.", lower_bound=0)
_TPU_TYPE = flags.DEFINE_string("tpu_type", "", "Node label, e.g. tpu-v5-lite-podslice.")
_TPU_TOPOLOGY = flags.DEFINE_string("tpu_topology", "", "Node label, e.g. 4x4.")
_CLAIM = flags.DEFINE_string("claim", "mmvm-jax", "Persistent volume claim, mounted at /storage.")
_RESTARTS = flags.DEFINE_integer("restarts", 100, "Maximum number of restarts.", lower_bound=0)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the manifest instead of applying it.")

_PORT = 8476


def main(argv: list[str]) -> None:
    """Render the manifest and pass it to kubectl."""
    text = manifest(argv[1:])
    if _DRY_RUN.value:
        print(text)
    else:
        sys.exit(subprocess.run(["kubectl", "apply", "-f", "-"], input=text, text=True, check=False).returncode)


def manifest(main_flags: list[str]) -> str:
    """Return the JobSet as YAML."""
    if bool(_GPUS.value) == bool(_TPUS.value):
        print("launch/kubernetes.py: error: give either --gpus or --tpus", file=sys.stderr)
        sys.exit(2)
    labels = {"accelerator": _TPU_TYPE.value, "topology": _TPU_TOPOLOGY.value}
    template = jinja2.Template(
        (pathlib.Path(__file__).parent / "jobset.yaml.jinja").read_text(), undefined=jinja2.StrictUndefined
    )
    return template.render(
        name=_NAME.value,
        image=_IMAGE.value,
        nodes=_NODES.value,
        resource="nvidia.com/gpu" if _GPUS.value else "google.com/tpu",
        chips=_GPUS.value or _TPUS.value,
        selector={f"cloud.google.com/gke-tpu-{key}": value for key, value in labels.items() if value},
        claim=_CLAIM.value,
        restarts=_RESTARTS.value,
        port=_PORT,
        flags=main_flags,
    )


if __name__ == "__main__":
    app.run(main)
