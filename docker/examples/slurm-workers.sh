#!/bin/bash
# Workers for a bridge elsewhere as a Slurm array, one GPU each: sbatch slurm-workers.sh
#
# The bridge's data folder is on the cluster's shared file system. Its files are the bridge's
# alone: submit this as the bridge's user, with the same numeric user and group id on every node.
# Any other one is told `data-folder-denied`. A task that is cancelled, or is at the end of its
# time, gives its job back; one whose node dies loses it to another after lease_s. Tasks may be
# added and taken away at any moment. A worker that ends by itself, after a job over its time or a
# GPU that failed, is started again on its task.
#SBATCH --job-name=pacs-bridge
#SBATCH --array=1-16
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --output=pacs-bridge-%A-%a.log
set -euo pipefail

export PGPASSFILE="$HOME/.pgpass" # mode 0600
export PGSSLMODE=verify-full PGSSLROOTCERT="$HOME/database-ca.pem"

status=1
for _ in $(seq 100); do
  status=0
  srun --kill-on-bad-exit=0 /opt/pacs-bridge/bin/pacs-bridge work \
    --config /shared/pacs-bridge/bridge.toml \
    --device cuda \
    --queue postgresql://bridge@db.example/pacs_bridge || status=$?
  case $status in 0 | 143) break ;; esac # it was told to leave
  sleep "${RESTART_S:-30}"
done
exit "$status"
