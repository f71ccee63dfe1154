#!/bin/sh
# {{name}}: a job of `fsqdo launch` (profile system: slurm).
#SBATCH --job-name={{name}}
#SBATCH --output={{output}}
#SBATCH --open-mode=append
#SBATCH --account={{account}}
#SBATCH --partition={{batch_queue}}
#SBATCH --constraint={{constraint}}
#SBATCH --nodes={{nodes}}
#SBATCH --ntasks-per-node={{workers_per_node}}
#SBATCH --cpus-per-task={{cores_per_worker}}
#SBATCH --gpus-per-node={{gpus_per_node}}
#SBATCH --mem={{mem_mb_per_node}}M
#SBATCH --time={{walltime}}
#SBATCH --signal=B:USR1@{{warn_s}}
#SBATCH --requeue
#SBATCH --array=0-{{array_last}}
#SBATCH --dependency=afterany:{{after}} --kill-on-invalid-dep=yes
#SBATCH --export={{export}}
#SBATCH {{directives}}
{{run}}
