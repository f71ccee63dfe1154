#!/bin/sh
# fsqdo-extract-7: a job of `fsqdo launch` (profile system: sge).
#$ -N fsqdo-extract-7
#$ -S /bin/sh
#$ -cwd
#$ -j y
#$ -o /data/queues/extract/logs/job-7.log
#$ -notify
#$ -r y
#$ -V
cd -- '/data/run 1' || exit 1
export FSQDO_DIR=/data/queues
export FSQDO_JOB=7
exec /usr/bin/python3 /opt/fsqdo do extract -j 16
