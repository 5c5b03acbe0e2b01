#!/bin/bash
# `ortcam batch --engine ray` under Slurm: Ray on every node of the job, for as long as the job runs.
#   sbatch slurm.sh resnet18.ortcam /scratch/photographs /scratch/maps [options of ortcam batch]
# All nodes need the environment with ortcam[cpu,ray], and see INPUT and OUTPUT under the same paths.
#SBATCH --job-name=ortcam
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
# A job that was preempted begins again, and --resume goes on with what is missing.
#SBATCH --requeue
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0  # Ray tells nobody that it is used
model=$1 input=$2 output=$3
shift 3

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$head:${RAY_PORT:-6379}
# All steps end with the job.
trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT
# In the background: Ray on one node.
on() { exec srun --nodes=1 --ntasks=1 --nodelist="$1" "${@:2}"; }

on "$head" ray start --head --port="${address##*:}" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
# Until it answers; if it has ended, so does the job.
until ray status --address="$address" > /dev/null 2>&1; do kill -0 $!; sleep 1; done
for node in "${nodes[@]:1}"; do
    on "$node" ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
done

ortcam batch "$model" "$input" -o "$output" --resume --engine ray --ray-address="$address" "$@"
