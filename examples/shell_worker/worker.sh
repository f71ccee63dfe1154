#!/bin/sh
# A worker without fsqdo: worker.sh QUEUE_DIRECTORY
#
# It claims with mv, as docs/format.md says, beside any number of other workers, and ends when nothing is pending. What it leaves
# out: tasks that are objects, still packed (a load of more than 1000), or waiting; cores, time limits, retries, orders (DRAIN, kill).
# Escapes in a command other than \" \\ \/ need a reader of JSON. A kill at any line loses nothing: `fsqdo recover` goes on.
set -u
cd "$1" || exit 1

# Become a worker: the directory is complete, and has worker.json in it, before the rename that reveals it. Nothing ever makes it
# again: when it is gone, this worker was declared dead, and owns nothing. The last four fields let others on this machine see
# that the process has ended; without them it is given up after 15 minutes without a heartbeat.
w=$(uname -n | cut -d. -f1 | tr -c 'A-Za-z0-9_\n' -)-$$-$(od -An -N3 -tx1 /dev/urandom | tr -d ' \n')
mkdir "tmp/$w" "logs/$w" || exit 1
printf '{"worker":"%s","host":"%s","pid":%d,"pid_start":%d,"pid_namespace":"%s","boot_id":"%s"}\n' "$w" "$(uname -n)" $$ \
    "$(cut -d' ' -f22 /proc/$$/stat)" "$(readlink /proc/$$/ns/pid)" "$(cat /proc/sys/kernel/random/boot_id)" >"tmp/$w/worker.json"
mv "tmp/$w" "running/$w" || exit 1
while sleep 60 && kill -0 $$ && touch "running/$w/worker.json"; do :; done >/dev/null 2>&1 &
trap "kill $!" EXIT

# The name that a failed task goes under: its f raised. Counters stand after the dot, in any order.
failed_once_more() {
    case $1 in
        *.*f[0-9]*) f=${1##*f} && f=${f%%[!0-9]*} && echo "${1%f*}f$((f + 1))${1##*f"$f"}" ;;
        *.*) echo "${1}f1" ;;
        *) echo "$1.f1" ;;
    esac
}

# The highest priority first, then the lowest id. A name with @ in it was moved by hand, and is left to fsqdo's own workers.
pending() {
    ls -d pending/*/*/[0-9]*.json 2>/dev/null | grep -v @ | sort -t / -k 2,2nr -k 4,4 | head -n 1
}

log=logs/$w/0.log
: >"$log"
while [ ! -e PAUSED ] && file=$(pending) && [ -n "$file" ]; do
    task=$(basename "$file" .json) own=running/$w/${file##*/}
    mv "$file" "$own" 2>/dev/null                                 # the claim. Lost: somebody else has it
    [ -e "$own" ] || { [ -d "running/$w" ] && continue || exit 1; }
    command=$(sed -n 's/^{"id":[0-9]*,"task":"\([^"\\]*\(\\.[^"\\]*\)*\)".*/\1/p' "$own" | sed 's/\\\(["\\/]\)/\1/g')
    cwd=$(sed -n 's/.*,"cwd":"\([^"\\]*\)".*/\1/p' "$own") begin=$(date -u +%FT%TZ) first=$(($(wc -c <"$log")))
    (cd "${cwd:-.}" && exec sh -c "${command:-exit 65}") >>"$log" 2>&1 </dev/null
    code=$? shard=${task%%.*} && shard=${shard%???}
    [ $code = 0 ] && end=succeeded to=succeeded/$shard/$task@$w.json || end=failed to=failed/$shard/$(failed_once_more "$task")@$w.json
    printf '{"name":"%s","outcome":"%s","to":"%s","started_at":"%s","ended_at":"%s","exit_code":%d,"slot":0,"log":[0,%d,%d]}\n' \
        "$task" $end "$to" "$begin" "$(date -u +%FT%TZ)" $code "$first" "$(wc -c <"$log")" >>"outcomes/$w.jsonl"
    mkdir -p "${to%/*}" && mv "$own" "$to" 2>/dev/null            # the outcome stands in the journal before the task moves
done

rm "running/$w/worker.json" && rmdir "running/$w"
