#!/bin/sh
# Jobs in Slurm clusters. A job's number says nothing without its cluster, and a queue may have jobs in several: ids are
# NUMBER;CLUSTER.
#
#   slurm-jobs.sh submit COMMAND...   runs COMMAND, which is sbatch --parsable, and prints the id with the cluster's name
#   slurm-jobs.sh status ID...        a line "ID|STATE" for each job or element of an array; "ID|absent" if it is gone
#   slurm-jobs.sh cancel ID...        cancels; one that has ended already is no error
#
# squeue asks slurmctld, which forgets an ended job after MinJobAge. Then sacct knows it, where there is accounting. Where there is
# none, "absent" is said only if slurmctld answered and shows everybody's jobs: a job that is hidden from me (PrivateData) is not gone.
set -f

here() {
    scontrol show config | sed -n 's/^ClusterName[[:blank:]]*=[[:blank:]]*//p'
}

submit() {
    printed=$("$@") || {
        code=$?
        printf '%s\n' "$printed"
        exit "$code"
    }
    cluster=$(here 2>/dev/null)
    printf '%s\n' "$printed" | sed "s/^[0-9][0-9]*\$/&${cluster:+;$cluster}/"
}

# The cluster of an id; "-" where it names none.
cluster_of() {
    case $1 in *\;*) echo "${1#*;}" ;; *) echo - ;; esac
}

# Calls $1 for each cluster of the ids, with numbers, option (for the commands) and suffix (for the ids) set.
by_cluster() {
    act=$1
    shift
    [ $# -gt 0 ] || exit 0
    default=$(here)
    for cluster in $(for id do cluster_of "$id"; done | sort -u); do
        numbers=
        for id do
            if [ "$(cluster_of "$id")" = "$cluster" ]; then numbers="$numbers ${id%;*}"; fi
        done
        suffix=";$cluster" option="-M $cluster"
        case $cluster in
            -) suffix='' option='' ;;
            "$default") option='' ;; # -M needs the accounting, which not every site has
        esac
        "$act" $numbers
    done
}

with_suffix() {
    sed -n "s/^\([0-9][0-9]*\)\(_[^|]*\)\{0,1\}|/\1$suffix|/p"
}

ask() {
    ids=$(IFS=, && echo "$*")
    # Twice the first: asked for a single job that it does not know, squeue fails as if slurmctld had not answered.
    listed=$(squeue $option -h -t all -o '%F|%T' -j "$1,$ids") || return
    printf '%s\n' "$listed" | with_suffix
    missing=
    for id do
        case "
$listed" in *"
$id|"*) ;; *) missing="$missing $id" ;; esac
    done
    set -- $missing
    [ $# -gt 0 ] || return 0
    ids=$(IFS=, && echo "$*")
    if known=$(sacct $option -X -n -P -o JobID,State -j "$ids" 2>/dev/null); then
        printf '%s\n' "$known" | with_suffix
    elif [ -n "$suffix" ]; then
        private=$(scontrol $option show config | sed -n 's/^PrivateData[[:blank:]]*=[[:blank:]]*//p')
        case $private in '' | *jobs* | *all*) return ;; esac
        for id do echo "$id|absent"; done | with_suffix
    fi
}

end() {
    /bin/sh "${0%/*}/cancel.sh" 'invalid job id|already complet' scancel --quiet $option "$@" || failed=1
}

case $1 in
    submit) "$@" ;;
    status)
        shift
        by_cluster ask "$@"
        ;;
    cancel)
        failed=0
        shift
        by_cluster end "$@"
        exit $failed
        ;;
    *) exit 2 ;;
esac
