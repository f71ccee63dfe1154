#!/bin/sh
# {{name}}: a job of `fsqdo launch` on a machine without a batch system (profile system: local).
# It runs in a session of its own. The last line becomes the worker, so that a signal to the job is one to the worker.
cd -- {{directory}} || exit 1
export {{env}}
{{prologue}}
exec {{command}}
