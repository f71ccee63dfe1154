# env: clean. What every program expects to be there, should the batch system have left it out.
export PATH="${PATH:-/usr/local/bin:/usr/bin:/bin}"
export HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d : -f 6)}"
export USER="${USER:-$(id -un)}"
export LOGNAME="${LOGNAME:-$USER}"
