#!/bin/sh
# {{name}}: a job of `fsqdo launch` (profile system: sge).
#$ -N {{name}}
#$ -S /bin/sh
#$ -cwd
#$ -j y
#$ -o {{output}}
#$ -A {{account}}
#$ -q {{batch_queue}}
#$ -l {{constraint}}
#$ -pe {{environment}}
#$ -l h_rt={{walltime_s}}
#$ -l s_rt={{soft_s}}
#$ -notify
#$ -r y
#$ -t 1-{{array}}
#$ -hold_jid {{after}}
#$ {{export}}
#$ {{directives}}
{{run}}
