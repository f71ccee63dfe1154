#!/bin/sh
# fsqdo-extract-7: a job of `fsqdo launch` (profile system: pbs, which is PBS Pro and OpenPBS).
#PBS -N fsqdo-extract-7
#PBS -S /bin/sh
#PBS -j oe
#PBS -o /data/queues/extract/logs/job-7.log
#PBS -l select=1:ncpus=1:mpiprocs=1
#PBS -r y
#PBS -V
cd -- '/data/run 1' || exit 1
export FSQDO_DIR=/data/queues
export FSQDO_JOB=7
exec /usr/bin/python3 /opt/fsqdo do extract -j 16
