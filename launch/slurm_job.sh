#!/usr/bin/env bash
# The job of slurm.sh: it runs the command in every task, and requeues itself if it was asked to stop.
set -uo pipefail

# A task that ends must not end the tasks that are still saving.
srun --kill-on-bad-exit=0 --wait=0 "${PYTHON:-python}" -m mmvm_jax.main "$@"
code=$?
# 75 (mmvm_jax.errors.RESTART): asked to stop, or another task has died; 134: JAX noticed that another task has died.
if [ "$code" -eq 75 ] || [ "$code" -eq 134 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
