#!/bin/sh
# "fsqdo-extract-7[1-4]": a job of `fsqdo launch` (profile system: lsf).
#BSUB -J "fsqdo-extract-7[1-4]"
#BSUB -o "/data/queues/extract/logs/job-7.log.%I"
#BSUB -n 1
#BSUB -W 2
#BSUB -wa USR1 -wt 1
#BSUB -r
#BSUB -w "ended(12)"
#BSUB -env "all"
cd -- '/data/run 1' || exit 1
export FSQDO_DIR=/data/queues
export FSQDO_JOB=7
exec /usr/bin/python3 /opt/fsqdo do extract -j 16
