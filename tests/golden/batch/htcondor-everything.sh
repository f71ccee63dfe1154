#!/bin/sh
# fsqdo-extract-7: a job of `fsqdo launch` (profile system: htcondor). The submit description is what stands behind #HTCONDOR; the
# executable, which is this very script, is added when it is submitted (htcondor-jobs.sh).
#HTCONDOR universe = vanilla
#HTCONDOR batch_name = fsqdo-extract-7
#HTCONDOR output = /data/queues/extract/logs/job-7.log.$(Process)
#HTCONDOR error = /data/queues/extract/logs/job-7.log.$(Process)
#HTCONDOR should_transfer_files = NO
#HTCONDOR accounting_group = m1234
#HTCONDOR requirements = HasGPU && Arch == "X86_64"
#HTCONDOR request_cpus = 16
#HTCONDOR request_gpus = 4
#HTCONDOR request_memory = 2000M
#HTCONDOR periodic_remove = JobStatus == 2 && time() - EnteredCurrentStatus > 90
#HTCONDOR kill_sig = SIGTERM
#HTCONDOR getenv = False
#HTCONDOR +WantSpot = True
#HTCONDOR queue 4
cd -- '/data/run 1' || exit 1
# env: clean. What every program expects to be there, should the batch system have left it out.
export PATH="${PATH:-/usr/local/bin:/usr/bin:/bin}"
export HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d : -f 6)}"
export USER="${USER:-$(id -un)}"
export LOGNAME="${LOGNAME:-$USER}"
export A='it'"'"'s $HOME
'"${0##*}"'#SBATCH --exclusive'
module load python
ulimit -c 0
# In the background, so that this shell can pass on signals that the batch system sends to it alone, and go on afterwards.
fsqdo_pid= fsqdo_signal=
fsqdo_pass() {
    fsqdo_signal=$1
    if [ -n "$fsqdo_pid" ]; then kill -s "$1" "$fsqdo_pid" 2>/dev/null; fi
}
trap 'fsqdo_pass USR1' USR1
trap 'fsqdo_pass TERM' TERM USR2
trap 'fsqdo_signal=INT' INT
apptainer exec 'my image.sif' /usr/bin/python3 /opt/fsqdo do extract -j 16 &
fsqdo_pid=$!
# One may have come before there was anybody to pass it to.
if [ -n "$fsqdo_signal" ]; then fsqdo_pass "$fsqdo_signal"; fi
# A signal ends `wait` although the workers go on: wait again. 127: they had ended, and their code is known already.
fsqdo_code=127
while
    fsqdo_signal=
    wait "$fsqdo_pid"
    fsqdo_said=$?
    if [ "$fsqdo_said" -ne 127 ]; then fsqdo_code=$fsqdo_said; fi
    [ -n "$fsqdo_signal" ]
do :; done
trap - USR1 TERM USR2 INT
echo the workers have ended
exit "$fsqdo_code"
