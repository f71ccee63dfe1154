#!/bin/sh
# {{name}}: a job of `fsqdo launch` (profile system: flux).
#flux: --job-name={{name}}
#flux: --output={{output}}
#flux: --bank={{account}}
#flux: --queue={{batch_queue}}
#flux: --requires={{constraint}}
#flux: --nodes={{nodes}}
#flux: --nslots={{workers}}
#flux: --cores-per-slot={{cores_per_worker}}
#flux: --gpus-per-slot={{gpus_per_worker}}
#flux: --time-limit={{walltime_s}}s
#flux: --signal=USR1@{{warn_s}}s
#flux: --dependency=afterany:{{after}}
#flux: --env={{export}}
#flux: {{directives}}
{{run}}
