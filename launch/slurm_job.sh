#!/usr/bin/env bash
# What the job of slurm.sh does: runs the command in every task, and goes back into the queue if it was asked to stop.
set -uo pipefail

# A task that ends must not take those with it that are still saving.
srun --kill-on-bad-exit=0 --wait=0 "${PYTHON:-python}" -m mmvm_jax.main "$@"
code=$?
# 75 (mmvm_jax.errors.RESTART): asked to stop, or another task is gone; 134: the latter, noticed by JAX.
if [ "$code" -eq 75 ] || [ "$code" -eq 134 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
