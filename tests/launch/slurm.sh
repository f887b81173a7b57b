#!/usr/bin/env bash
# launch/slurm.sh on a real SLURM of one node: two tasks train together, are asked to stop, are queued again, finish.
# Needs root and Debian's packages slurm-wlm and munge. Usage: tests/launch/slurm.sh PYTHON
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHON=${1:?the Python that has mmvm_jax}
export JAX_PLATFORMS=cpu
state=$(mktemp -d)
export SLURM_CONF=$state/slurm.conf
cat > "$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
KillWait=30
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
StateSaveLocation=$state/state
SlurmdSpoolDir=$state/spool
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
echo "CgroupPlugin=cgroup/v1" > "$state/cgroup.conf"
mkdir -p "$state/state" "$state/spool" /run/munge
chown munge: /run/munge
stop() {
  scancel --user="$(id -un)" --full || true
  sleep 2
  pkill -F "$state/slurmd.pid" || true
  pkill -F "$state/slurmctld.pid" || true
  [ -z "${munged:-}" ] || pkill -x munged
}
trap stop EXIT
pgrep -x munged > /dev/null || { runuser -u munge -- munged && munged=started; }
slurmctld
slurmd
cd "$root"
workdir=$state/run

wait_for() { # what, seconds, command
  local end=$((SECONDS + $2))
  until eval "$3" > /dev/null 2>&1; do
    if [ "$SECONDS" -ge "$end" ]; then
      echo "FAILED: $1 did not happen within $2 s"
      tail -n 30 "$state"/slurmctld.log "$state"/*.out
      exit 1
    fi
    sleep 1
  done
  echo "$1: after $SECONDS s"
}

job=$(launch/slurm.sh --ntasks=2 --parsable --output="$state/job.out" -- \
  --config=configs/polydigits.py:quicktest --workdir="$workdir" --config.train.steps=120)
echo "job $job queued"
wait_for "training in two tasks" 300 "grep -q '\"step\": 20,' $workdir/metrics.jsonl"
scancel --signal=TERM "$job"
wait_for "saved" 120 "grep -q 'stopped and saved at step' $state/job.out"
wait_for "in the queue again" 120 "scontrol show job $job | grep -q 'Restarts=1'"
scontrol update JobId="$job" StartTime=now || true # SLURM itself would wait for two minutes
wait_for "report written" 600 "test -s $workdir/report.html"
wait_for "job completed" 120 "scontrol show job $job | grep -q 'JobState=COMPLETED'"
grep -v "it/s" "$state/job.out"
echo "PASSED"
