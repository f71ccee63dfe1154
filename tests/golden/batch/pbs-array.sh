#!/bin/sh
# fsqdo-extract-7: a job of `fsqdo launch` (profile system: pbs, which is PBS Pro and OpenPBS).
#PBS -N fsqdo-extract-7
#PBS -S /bin/sh
#PBS -j oe
#PBS -o /data/queues/extract/logs/job-7.log.^array_index^
#PBS -l select=1:ncpus=1:mpiprocs=1
#PBS -l walltime=00:01:30
#PBS -r y
#PBS -J 0-3
#PBS -W depend=afterany:12.server
#PBS -V
cd -- '/data/run 1' || exit 1
export FSQDO_DIR=/data/queues
export FSQDO_JOB=7
exec /usr/bin/python3 /opt/fsqdo do extract -j 16
