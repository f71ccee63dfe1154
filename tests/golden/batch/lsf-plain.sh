#!/bin/sh
# fsqdo-extract-7: a job of `fsqdo launch` (profile system: lsf).
#BSUB -J fsqdo-extract-7
#BSUB -o "/data/queues/extract/logs/job-7.log"
#BSUB -n 1
#BSUB -r
#BSUB -env "all"
cd -- '/data/run 1' || exit 1
export FSQDO_DIR=/data/queues
export FSQDO_JOB=7
exec /usr/bin/python3 /opt/fsqdo do extract -j 16
