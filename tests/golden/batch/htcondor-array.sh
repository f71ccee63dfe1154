#!/bin/sh
# fsqdo-extract-7: a job of `fsqdo launch` (profile system: htcondor). The submit description is what stands behind #HTCONDOR; the
# executable, which is this very script, is added when it is submitted (htcondor-jobs.sh).
#HTCONDOR universe = vanilla
#HTCONDOR batch_name = fsqdo-extract-7
#HTCONDOR output = /data/queues/extract/logs/job-7.log.$(Process)
#HTCONDOR error = /data/queues/extract/logs/job-7.log.$(Process)
#HTCONDOR should_transfer_files = NO
#HTCONDOR periodic_remove = JobStatus == 2 && time() - EnteredCurrentStatus > 90
#HTCONDOR kill_sig = SIGTERM
#HTCONDOR getenv = True
#HTCONDOR queue 4
cd -- '/data/run 1' || exit 1
export FSQDO_DIR=/data/queues
export FSQDO_JOB=7
exec /usr/bin/python3 /opt/fsqdo do extract -j 16
