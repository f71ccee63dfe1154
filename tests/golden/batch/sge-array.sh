#!/bin/sh
# fsqdo-extract-7: a job of `fsqdo launch` (profile system: sge).
#$ -N fsqdo-extract-7
#$ -S /bin/sh
#$ -cwd
#$ -j y
#$ -o /data/queues/extract/logs/job-7.log.$TASK_ID
#$ -l h_rt=90
#$ -l s_rt=45
#$ -notify
#$ -r y
#$ -t 1-4
#$ -hold_jid 12
#$ -V
cd -- '/data/run 1' || exit 1
export FSQDO_DIR=/data/queues
export FSQDO_JOB=7
exec /usr/bin/python3 /opt/fsqdo do extract -j 16
