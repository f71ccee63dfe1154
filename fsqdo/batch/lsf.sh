#!/bin/sh
# {{name}}: a job of `fsqdo launch` (profile system: lsf).
#BSUB -J {{name}}
#BSUB -o {{output}}
#BSUB -P {{account}}
#BSUB -q {{batch_queue}}
#BSUB -R "{{constraint}}"
#BSUB -n {{cores}}
#BSUB -R "span[ptile={{cores_on_node}}]"
#BSUB -R "rusage[mem={{mem_mb_per_node}}MB]"
#BSUB -gpu num={{gpus_per_node}}
#BSUB -W {{walltime}}
#BSUB -wa USR1 -wt {{warn_min}}
#BSUB -r
#BSUB -w "ended({{after}})"
#BSUB -env {{export}}
#BSUB {{directives}}
{{hosts}}
{{run}}
