#!/bin/sh
# {{name}}: a job of `fsqdo launch` (profile system: htcondor). The submit description is what stands behind #HTCONDOR; the
# executable, which is this very script, is added when it is submitted (htcondor-jobs.sh).
#HTCONDOR universe = vanilla
#HTCONDOR batch_name = {{name}}
#HTCONDOR output = {{output}}
#HTCONDOR error = {{output}}
#HTCONDOR should_transfer_files = NO
#HTCONDOR accounting_group = {{account}}
#HTCONDOR requirements = {{constraint}}
#HTCONDOR request_cpus = {{cores_per_node}}
#HTCONDOR request_gpus = {{gpus_per_node}}
#HTCONDOR request_memory = {{mem_mb_per_node}}M
#HTCONDOR periodic_remove = JobStatus == 2 && time() - EnteredCurrentStatus > {{walltime_s}}
#HTCONDOR kill_sig = SIGTERM
#HTCONDOR getenv = {{export}}
#HTCONDOR {{directives}}
#HTCONDOR queue {{count}}
{{run}}
