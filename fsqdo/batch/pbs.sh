#!/bin/sh
# {{name}}: a job of `fsqdo launch` (profile system: pbs, which is PBS Pro and OpenPBS).
#PBS -N {{name}}
#PBS -S /bin/sh
#PBS -j oe
#PBS -o {{output}}
#PBS -A {{account}}
#PBS -q {{batch_queue}}
#PBS -l select={{select}}
#PBS -l walltime={{walltime}}
#PBS -r y
#PBS -J 0-{{array_last}}
#PBS -W depend=afterany:{{after}}
#PBS {{export}}
#PBS {{directives}}
{{run}}
