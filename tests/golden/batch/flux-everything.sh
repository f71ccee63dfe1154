#!/bin/sh
# fsqdo-extract-7: a job of `fsqdo launch` (profile system: flux).
#flux: --job-name=fsqdo-extract-7
#flux: --output="/data/queues/extract/logs/job-7.log"
#flux: --bank=m1234
#flux: --queue=regular
#flux: --requires="gpu"
#flux: --nodes=3
#flux: --nslots=6
#flux: --cores-per-slot=16
#flux: --gpus-per-slot=4
#flux: --time-limit=90s
#flux: --signal=USR1@45s
#flux: --dependency=afterany:ƒ2oLkTLb
#flux: --env="-*"
#flux: --exclusive
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
flux run --nodes=3 --ntasks=6 --cores-per-task=16 --gpus-per-task=4 apptainer exec 'my image.sif' /usr/bin/python3 /opt/fsqdo do extract -j 16 &
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
