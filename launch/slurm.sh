#!/usr/bin/env bash
# Queues a run on a SLURM cluster: one process per task; all processes train one model.
#
#   launch/slurm.sh --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --time=24:00:00 -- \
#       --config=configs/cub.py --workdir=runs/cub
#
# Options before -- are those of sbatch (use one task per GPU), flags after it are those of mmvm_jax.main. With
# --dry_run as the first option it prints the command instead. Two minutes before the time limit, and when the job is preempted,
# training saves a checkpoint and the job is requeued.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
say() {
  printf '%q ' "$@"
  echo
}
run=()
if [ "${1:-}" = "--dry_run" ]; then
  run=(say)
  shift
fi
options=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  options+=("$1")
  shift
done
if [ "${1:-}" != "--" ]; then
  echo "launch/slurm.sh: error: -- is missing; allowed: [--dry_run] OPTIONS-OF-SBATCH -- FLAGS-OF-MMVM_JAX.MAIN" >&2
  exit 2
fi
shift
"${run[@]}" sbatch --job-name=mmvm_jax --requeue --open-mode=append --signal=TERM@120 --output=slurm-%j.log \
  "${options[@]}" "$here/slurm_job.sh" "$@"
