#!/bin/sh
# {{name}}: a job of `fsqdo launch` on a machine without a batch system (profile system: local).
# It runs in a session of its own. A single worker takes the place of this shell, so that a signal to the job is one to it.
{{run}}
