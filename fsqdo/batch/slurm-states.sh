#!/bin/sh
# States of Slurm jobs: slurm-states.sh [-M CLUSTER] ID...   prints "ID|STATE" lines, or "ID|absent"
#
# squeue asks slurmctld, which forgets an ended job after MinJobAge. Then sacct knows it, where there is accounting. Where there is
# none, "absent" is said only if slurmctld answered and shows everybody's jobs: a job that is hidden from me (PrivateData) is not gone.
cluster=
case $1 in -M)
    cluster="-M $2"
    shift 2
    ;;
esac
[ $# -gt 0 ] || exit 0
ids=$(IFS=, && echo "$*")
# Twice the first: asked for a single job that it does not know, squeue fails as if slurmctld had not answered.
listed=$(squeue $cluster -h -t all -o '%F|%T' -j "$1,$ids") || exit 1
printf '%s\n' "$listed"
missing=
for id do
    case "
$listed
" in *"
$id|"*) ;; *) missing="$missing $id" ;; esac
done
[ -n "$missing" ] || exit 0
set -- $missing
ids=$(IFS=, && echo "$*")
if known=$(sacct $cluster -X -n -P -o JobID,State -j "$ids" 2>/dev/null); then
    printf '%s\n' "$known" | sed 's/^\([0-9]*\)_[^|]*|/\1|/'
elif config=$(scontrol $cluster show config) && private=$(printf '%s\n' "$config" | sed -n 's/^PrivateData *= *//p') &&
    [ -n "$private" ] && case $private in *jobs* | *all*) false ;; esac; then
    for id do echo "$id|absent"; done
fi
