#!/bin/sh
# fsqdo-extract-7: a job of `fsqdo launch` (profile system: torque).
#PBS -N fsqdo-extract-7
#PBS -S /bin/sh
#PBS -j oe
#PBS -o /data/queues/extract/logs/job-7.log
#PBS -l nodes=1:ppn=1
#PBS -r y
#PBS -V
cd -- '/data/run 1' || exit 1
export FSQDO_DIR=/data/queues
export FSQDO_JOB=7
exec /usr/bin/python3 /opt/fsqdo do extract -j 16
