#!/bin/sh
# fsqdo-extract-7: a job of `fsqdo launch` (profile system: slurm).
#SBATCH --job-name=fsqdo-extract-7
#SBATCH --output=/data/queues/extract/logs/job-7.log
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --export=ALL
cd -- '/data/run 1' || exit 1
export FSQDO_DIR=/data/queues
export FSQDO_JOB=7
exec /usr/bin/python3 /opt/fsqdo do extract -j 16
