#!/bin/bash
# Train on several machines with SLURM, over as many jobs as it takes. Run it from the repository's folder:
#
#     sbatch docs/slurm.sh configs/mbt2018.yaml name=joint16 output_dir=/shared/runs 'data.train=[/shared/shards/train]'
#
# The numbers below are for two machines with eight GPUs each. Options of sbatch override them:
#
#     sbatch --nodes=4 docs/slurm.sh ...
#SBATCH --job-name=jahp
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --time=24:00:00
# Three minutes before the limit, every process receives SIGUSR1: the run saves and exits with status 138.
#SBATCH --signal=USR1@180
# After preemption (SIGTERM: the run saves) or a machine's failure, SLURM itself restarts the job.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.txt
set -eu -o pipefail

export OMP_NUM_THREADS=1
JAHP=${JAHP:-.venv/bin/jahp}

status=0
srun --kill-on-bad-exit=1 "$JAHP" train "$@" configs/overlays/ddp8.yaml \
    "trainer.devices=$SLURM_NTASKS_PER_NODE" "trainer.num_nodes=$SLURM_JOB_NUM_NODES" || status=$?
if [ "$status" -eq 138 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
