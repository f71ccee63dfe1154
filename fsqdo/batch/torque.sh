#!/bin/sh
# {{name}}: a job of `fsqdo launch` (profile system: torque).
#PBS -N {{name}}
#PBS -S /bin/sh
#PBS -j oe
#PBS -o {{output}}
#PBS -A {{account}}
#PBS -q {{batch_queue}}
#PBS -l nodes={{select}}
#PBS -l mem={{mem_mb}}mb
#PBS -l walltime={{walltime}}
#PBS -r y
#PBS -t 0-{{array_last}}
#PBS -W depend=afterany:{{after}}
#PBS {{export}}
#PBS {{directives}}
{{run}}
