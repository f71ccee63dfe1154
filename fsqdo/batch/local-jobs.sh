#!/bin/sh
# Jobs of a machine without a batch system: background processes, each in a session of its own.
#
#   local-jobs.sh submit SCRIPT LOG    start SCRIPT, its output going to LOG; prints the job's id
#   local-jobs.sh status ID...         a line for each id that this machine knows something of:
#                                      "ID STATE STARTTIME" of the process that has this pid now, or "ID gone"
#   local-jobs.sh cancel ID...         TERM to the process groups of these jobs; what has ended is passed over
#
# An id is PID.STARTTIME@HOST:NAMESPACE. The start time (field 22 of /proc/PID/stat, in clock ticks since boot) tells the job
# from a later process with the same pid; host and pid namespace tell where a pid means anything.
set -f

fail() {
    echo "$1" >&2
    exit 1
}

# Sets state and start to those of the process $1, or to nothing. The name in parentheses may hold anything, so all up to the last
# parenthesis goes; then the state is the first word, and the start time the 20th.
look() {
    stat=
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null
    set -- ${stat##*)}
    state=$1 start=${20}
}

submit() {
    : >>"$2" || exit 1
    # Not `&`: the shell would start the job with SIGINT and SIGQUIT ignored, and so all its tasks.
    exec setsid -f /bin/sh "$0" begin "$1" "$2"
}

# The new session says its id itself, before anything can have ended it, and then becomes the script.
begin() {
    look $$
    [ -n "$start" ] || fail "/proc/$$/stat cannot be read"
    echo "$$.$start@$place"
    exec /bin/sh "$1" </dev/null >>"$2" 2>&1
}

status() {
    for id do
        [ "${id#*@}" = "$place" ] || continue
        pid=${id%%.*}
        look "$pid"
        if [ -n "$start" ]; then
            echo "$id $state $start"
        elif [ -r /proc/1/stat ]; then
            echo "$id gone"
        else
            # /proc is mounted so that the processes of others are not shown (hidepid): not seeing one proves nothing.
            case $(LC_ALL=C kill -0 "$pid" 2>&1) in
                *[Nn]"o such process"*) echo "$id gone" ;;
            esac
        fi
    done
}

cancel() {
    code=0
    for id do
        pid=${id%%.*} wanted=${id#*.}
        wanted=${wanted%%@*}
        if [ "${id#*@}" != "$place" ]; then
            echo "job $id is not on this machine, which is $place" >&2
            code=1
            continue
        fi
        look "$pid"
        if [ "$start" = "$wanted" ]; then kill -s TERM -- "-$pid" || code=1; fi
    done
    exit $code
}

read -r host </proc/sys/kernel/hostname && space=$(readlink /proc/self/ns/pid) ||
    fail "this machine has no /proc, by which the profile local knows its jobs"
space=${space#*[}
place=$host:${space%]}

case $1 in
    submit | begin | status | cancel) "$@" ;;
    *) fail "usage: $0 submit SCRIPT LOG | status ID... | cancel ID..." ;;
esac
