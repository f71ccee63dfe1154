#!/bin/sh
# A month at many stations: run.sh [PROFILE [STATIONS [DAYS [WORKERS]]]]
# By default 32 groups of 25 commands, a merge for each group that requires them, and 50 workers of the profile local. Six commands
# fail at first, for a reason. Works in the current directory, in new directories of it. Needs `fsqdo` on the PATH.
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)
profile=${1:-local} stations=${2:-32} days=${3:-25} workers=${4:-50}

say() {
    echo
    printf '# %s\n' "$@"
}

# Show a command as one would type it, then run it.
run() {
    printf '$ %s\n' "$1"
    sh -c "$1"
}

# A reading for each hour. Six of the loggers were set to a language that writes 12,5 for 12.5.
mkdir readings days months
awk -v stations="$stations" -v days="$days" '
    function file(station, day) { return "readings/" station "/" day }
    BEGIN {
        for (k = 1; k <= 6; k++) comma[file(1 + (k * 5) % stations, 1 + (k * 7) % days)] = 1
        for (s = 1; s <= stations; s++) {
            system("mkdir readings/" s " days/" s)
            for (d = 1; d <= days; d++) {
                for (hour = 0; hour < 24; hour++) {
                    text = sprintf("%.1f", 9 + s / 8 + 3 * sin(d / 4) + 5 * sin((hour - 9) * 0.2618))
                    if (file(s, d) in comma) sub(/\./, ",", text)
                    printf "%02d:00;%s\n", hour, text > file(s, d)
                }
                close(file(s, d))
            }
        }
    }'
cp "$here/extract" "$here/merge" .

# Requirements are given by name: ids there are none yet.
awk -v stations="$stations" -v days="$days" '
    BEGIN {
        for (s = 1; s <= stations; s++) {
            names = ""
            for (d = 1; d <= days; d++) {
                printf "{\"task\": \"./extract %d %d\", \"name\": \"extract %d %d\", \"max_retries\": 0}\n", s, d, s, d
                names = names (d > 1 ? ", " : "") sprintf("\"extract %d %d\"", s, d)
            }
            printf "{\"task\": \"./merge %d\", \"name\": \"merge %d\", \"requires\": [%s]}\n", s, s, names
        }
    }' > tasks.jsonl
total=$((stations * (days + 1)))

say "$total tasks: a command for each day of each station, and for each station a merge that requires them."
run "fsqdo load --json extract tasks.jsonl > ids"

say "$workers workers. Each ends when there is nothing left that it could run."
run "fsqdo launch extract $workers --profile $profile --walltime 10 --wait"

say "Six failed, and the merges that require them wait."
run "fsqdo list"
run "fsqdo tasks extract --state Failed"
run "fsqdo tasks extract --blocked"
failed=$(fsqdo tasks extract --state Failed --ids)
[ "$(echo "$failed" | wc -l)" -eq 6 ]

say "Why?"
run "fsqdo log extract $(echo "$failed" | head -n 1)"

say "A comma for a point. Mend these files, try again, and have three workers more."
for file in $(grep -l , readings/*/*); do
    sed 's/,/./' "$file" > mended
    mv mended "$file"
done
run "fsqdo retry extract"
run "fsqdo launch extract 3 --profile $profile --walltime 10 --wait"

say "The merges have run by themselves. Where the queue stands, and the warmest stations:"
run "fsqdo status extract"
run "sort -k 3 -n -r months/* | head -n 3"
fsqdo status extract | grep -qx "Succeeded  *$total"
