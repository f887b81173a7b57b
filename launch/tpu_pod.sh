#!/usr/bin/env bash
# Runs on a slice of a TPU pod, from creating the slice to deleting it.
#
#   launch/tpu_pod.sh [--dry_run] create  NAME ZONE TYPE VERSION [OPTIONS-OF-GCLOUD]   e.g. v5litepod-16 v2-alpha-tpuv5-lite
#   launch/tpu_pod.sh [--dry_run] queue   NAME ZONE TYPE VERSION [OPTIONS-OF-GCLOUD]   the same, as soon as there is capacity
#   launch/tpu_pod.sh [--dry_run] install NAME ZONE                                    the last commit of this clone, on all workers
#   launch/tpu_pod.sh [--dry_run] run     NAME ZONE FLAGS-OF-MMVM_JAX.MAIN             continues after you log out
#   launch/tpu_pod.sh [--dry_run] follow  NAME ZONE                                    the output of the first worker
#   launch/tpu_pod.sh [--dry_run] stop    NAME ZONE                                    saves a checkpoint, then ends
#   launch/tpu_pod.sh [--dry_run] delete  NAME ZONE
#
# --dry_run prints the commands instead. Only the first worker writes the workdir.
set -euo pipefail

say() {
  printf '%q ' "$@"
  echo
}

run=()
if [ "${1:-}" = "--dry_run" ]; then
  run=(say)
  shift
fi
case "${1:-}" in create|queue) needed=5 ;; *) needed=3 ;; esac
if [ $# -lt "$needed" ]; then
  sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
action=$1 name=$2 zone=$3
shift 3

on_workers() { # which workers, command
  "${run[@]}" gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

case "$action" in
  create)
    "${run[@]}" gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
      --accelerator-type="$1" --version="$2" "${@:3}"
    ;;
  queue)
    "${run[@]}" gcloud compute tpus queued-resources create "$name" --node-id="$name" --zone="$zone" \
      --accelerator-type="$1" --runtime-version="$2" "${@:3}"
    ;;
  install)
    archive=$(mktemp -d)/mmvm_jax.tar.gz
    "${run[@]}" git archive --format=tar.gz --output="$archive" HEAD
    "${run[@]}" gcloud compute tpus tpu-vm scp "$archive" "$name:mmvm_jax.tar.gz" --zone="$zone" --worker=all
    # If the Python of the image is older than 3.11, uv installs a newer one.
    on_workers all "mkdir -p mmvm_jax && tar -xzf mmvm_jax.tar.gz -C mmvm_jax && cd mmvm_jax && \
if python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then python3 -m venv .venv; \
else python3 -m pip install -q --user uv && python3 -m uv venv -q --seed --python 3.12 .venv; fi && \
.venv/bin/pip install -q '.[tpu]'"
    ;;
  run)
    # Restart the command until it ends by itself, if it was asked to stop (exit code 75) or another worker has died (75,
    # or 134 from JAX).
    flags=$(printf '%q ' "$@")
    on_workers all "cd mmvm_jax && rm -f stop && (setsid nohup bash -c 'until .venv/bin/python -m mmvm_jax.main \"\$@\"; \
do case \$? in 75|134) [ ! -e stop ] || break;; *) break;; esac; sleep 10; done' bash $flags > run.log 2>&1 < /dev/null &)"
    ;;
  follow)
    on_workers 0 "tail -n 50 -f mmvm_jax/run.log"
    ;;
  stop)
    on_workers all "touch mmvm_jax/stop; pkill -TERM -f mmvm_jax.main"
    ;;
  delete)
    "${run[@]}" gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet
    ;;
  *)
    echo "launch/tpu_pod.sh: error: $action; allowed: create, queue, install, run, follow, stop, delete" >&2
    exit 2
    ;;
esac
