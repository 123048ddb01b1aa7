#!/usr/bin/env bash
# Lets this x86-64 machine run aarch64 programs, in containers too: emulate.sh
#
# Fetches Debian 13's qemu-user (Debian 12's hangs in onnxruntime) through this machine's own apt
# sources, once, and registers it with the kernel until it restarts. Needs root. Exit code 3 and
# one line on stderr: no emulation here.
set -euo pipefail
home=${BEATTRACK_ENGINE:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/beattrack/engine}/qemu
qemu=$home/qemu-aarch64
registry=/proc/sys/fs/binfmt_misc
name=beattrack-aarch64 # of our entry: the newest wins, so that others' stay as they are

skip() {
    echo "no aarch64 emulation: $1" >&2
    exit 3
}

[ "$(uname -m)" != aarch64 ] || exit 0 # nothing to emulate
if grep -qsx "interpreter $qemu" "$registry/$name" && [ -x "$qemu" ]; then exit 0; fi
[ "$(id -u)" = 0 ] || skip "only root can register an emulator"

fetch() {
    local uri apt=$home/apt
    uri=$(awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) {print $i; exit}}' \
        /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true)
    [ -n "$uri" ] || skip "this machine has no apt sources of Debian"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri trixie main" >"$apt/sources.list"
    private() {
        apt-get -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=- \
            -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root "$@"
    }
    echo "fetching an aarch64 emulator" >&2
    { private update && cd "$apt" && private download qemu-user && dpkg-deb --fsys-tarfile qemu-user_*.deb |
            tar -x -C "$home" --strip-components=3 ./usr/bin/qemu-aarch64; } >"$home/log" 2>&1 || skip "qemu-user cannot be fetched: $(tail -n 1 "$home/log")"
    rm -rf "$apt"
}

mkdir -p "$home"
[ -x "$qemu" ] || fetch
if [ ! -e "$registry/register" ]; then
    mount -t binfmt_misc binfmt_misc "$registry" 2>/dev/null || skip "binfmt_misc cannot be mounted"
fi
[ ! -e "$registry/$name" ] || echo -1 >"$registry/$name"
# From qemu's own list. F opens the emulator now, so that containers need no copy of it.
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":$name:M::$magic:$mask:$qemu:FPOC" >"$registry/register" ||
    skip "the kernel does not take the emulator"
