#!/bin/sh
# install.sh run|test: installs what is missing and says nothing when nothing is.
#   Debian packages: group run (and test) of packages.txt.  Python packages: .venv from lock.txt (and lock-test.txt).
set -eu
group=$1
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
cd "$top"

packages=$(awk -v group="$group" '$1 == "run" || $1 == group { print $2 }' "$here/packages.txt")
missing=$(for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
done)
if [ -n "$missing" ]; then
    echo "installing Debian packages:" $missing
    [ "$(id -u)" = 0 ] || { echo "install.sh: these need root: apt-get install" $missing >&2; exit 1; }
    export DEBIAN_FRONTEND=noninteractive
    # A package list may be old or absent; only then is it fetched.
    apt-get install -qq -y --no-install-recommends $missing >/dev/null 2>&1 || {
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends $missing >/dev/null
    }
fi

python=$(command -v python3.11 || command -v python3)
[ -x .venv/bin/python ] || "$python" -m venv .venv
lock=$here/lock.txt
[ "$group" = test ] && lock=$here/lock-test.txt
stamp=.venv/installed-$group
want=$(cat "$lock" pyproject.toml | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ]; then
    echo "installing Python packages into .venv"
    log=.venv/install.log
    {
        .venv/bin/pip install --disable-pip-version-check -r "$lock" &&
            .venv/bin/pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
    } >"$log" 2>&1 || { tail -20 "$log" >&2; exit 1; }
    .venv/bin/python -c 'import trio, lmdb, libvirt, tools.cli.main'
    echo "$want" >"$stamp"
fi
