#!/bin/sh
# Jobs in an HTCondor pool.
#
#   htcondor-jobs.sh submit SCRIPT [OPTION...]   the lines behind #HTCONDOR in SCRIPT are the submit description; prints "ID@HOST"
#   htcondor-jobs.sh status ID@HOST...           a line "CLUSTER@HOST STATUS WHERE" for each process that queue or history has
#
# A cluster's number says nothing without its schedd: an id has the name of the host, and is unknown on any other.
host=$(hostname) || exit 1

submit() {
    script=$1
    shift
    printed=$(sed -n 's/^#HTCONDOR //p' -- "$script" | condor_submit -terse "$@" -) || exit 1
    printf '%s\n' "$printed"
    echo "host $host"
}

status() {
    ids=
    for id do [ "${id#*@}" != "$host" ] || ids="$ids ${id%@*}"; done
    set -- $ids
    [ $# -gt 0 ] || exit 0
    queued=$(condor_q -allusers "$@" -af ClusterId JobStatus) || exit 1
    printf '%s\n' "$queued" | sed "s/ /@$host /; s/\$/ queue/"
    missing=
    for id do
        case "
$queued" in *"
$id "*) ;; *) missing="$missing $id" ;; esac
    done
    [ -z "$missing" ] || condor_history $missing -af ClusterId JobStatus | sed "s/ /@$host /; s/\$/ history/"
}

case $1 in
    submit | status) "$@" ;;
    *) exit 2 ;;
esac
