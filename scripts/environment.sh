#!/usr/bin/env bash
# Makes a virtual environment once: environment.sh runtime|test FOLDER [PYTHON]
# It is made anew when a lock file or a package's pyproject.toml has changed.
set -euo pipefail
kind=$1 venv=$2 python=${3:-}

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

if [ -z "$python" ]; then
    for python in python3 python3.12 python3.11 python3.10 ""; do
        [ -n "$python" ] && fits "$python" && break
    done
fi
if [ -z "$python" ] || ! fits "$python"; then
    echo "error: beattrack needs Python 3.10, 3.11 or 3.12; install one or name it: PYTHON=python3.12 just ..." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    echo "error: $python cannot make virtual environments; on Debian or Ubuntu: sudo apt-get install python3-venv" >&2
    exit 1
fi

# Programs that some tests use. Tests whose program is missing skip and say so.
system_packages() {
    local wanted="libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins fluidsynth mma"
    local missing=() name
    wanted+=" timgm6mb-soundfont jackd2 espeak-ng"
    command -v google-chrome >/dev/null || wanted+=" chromium"
    for name in $wanted; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" = 0 ]; then
        echo "installing ${missing[*]}" >&2
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >/dev/null && return
    fi
    echo "note: tests that need them will skip; to run them: sudo apt-get install ${missing[*]}" >&2
}
stamp=$venv/.made-$(cat scripts/environment.sh runtime/requirements.txt tests/requirements.txt \
    ./*/pyproject.toml | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0
if [ "$kind" = test ] && command -v dpkg-query >/dev/null; then system_packages; fi

echo "making $venv with $("$python" --version); this happens once" >&2
"$python" -m venv --clear "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
if [ "$kind" = test ]; then
    pip install --quiet -r runtime/requirements.txt
    # torch first and by its version alone: a resolver may otherwise choose another build.
    pip install --quiet torch==2.13.0 -c runtime/requirements.txt
    pip install --quiet -r tests/requirements.txt -c runtime/requirements.txt
    # natten's build asks for torch, so it must see the one installed above.
    pip install --quiet --no-build-isolation natten==0.21.7
    pip install --quiet --no-deps -e shared -e runtime -e trainer
else
    pip install --quiet --no-deps --no-compile -r runtime/requirements.txt
    pip install --quiet --no-deps --no-compile -e shared -e runtime
fi
touch "$stamp"
