#!/usr/bin/env bash
# A stand-in for a vendor's base image: base.sh amd64|arm64 IMAGE
#
# Where no container registry is reached, tests build on a minimal Debian with Python instead, made
# by mmdebstrap from this machine's own apt sources. Its extra CA certificates come along: what
# lets this machine install packages lets builds on the stand-in too. arm64 needs emulate.sh first.
# An image of that name that was made from the same sources is kept. Exit code 3 and one line on
# stderr: it cannot be made here.
set -euo pipefail
arch=$1 image=$2 suite=${BEATTRACK_SUITE:-bookworm}

skip() {
    echo "no stand-in base for $arch: $1" >&2
    exit 3
}

docker version >/dev/null 2>&1 || skip "no docker daemon answers (engine.sh start)"
sources=()
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [ -s "$file" ] && sources=("$file") && break
done
[ ${#sources[@]} -gt 0 ] || skip "this machine has no apt sources of Debian"
recipe=$(cat "$0" "${sources[@]}" /etc/ssl/certs/ca-certificates.crt 2>/dev/null | sha256sum | cut -c1-16)
made=$(docker image inspect --format '{{index .Config.Labels "beattrack.recipe"}}' "$image" 2>/dev/null || true)
[ "$made" != "$recipe-$suite" ] || exit 0

if ! command -v mmdebstrap >/dev/null || ! command -v arch-test >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || skip "mmdebstrap is not installed"
    echo "installing mmdebstrap" >&2
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends mmdebstrap arch-test; } \
        >/dev/null 2>&1 || skip "mmdebstrap cannot be installed"
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/beattrack-base.XXXXXX")
trap 'rm -rf "$work"' EXIT
options=() # mmdebstrap's own look at emulators knows no other than Debian's registration
[ "$arch" != arm64 ] || options=(--skip=check/qemu)
# The machine's certificates as they are: ca-certificates would make them anew, minutes if emulated.
certificates=/etc/ssl/certs/ca-certificates.crt
hooks=("--customize-hook=mkdir -p \"\$1/etc/ssl/certs\"")
[ ! -e $certificates ] || hooks+=("--customize-hook=copy-in $certificates /etc/ssl/certs")
[ ! -d /usr/local/share/ca-certificates ] ||
    hooks+=("--customize-hook=copy-in /usr/local/share/ca-certificates /usr/local/share")
echo "making the stand-in base $image" >&2
QEMU_CPU=cortex-a76 mmdebstrap --quiet "${options[@]}" --variant=minbase --architectures="$arch" \
    --include=python3,python3-venv --aptopt='Acquire::Retries "3"' "${hooks[@]}" \
    "$suite" "$work/base.tar" "${sources[@]}" >"$work/log" 2>&1 ||
    skip "mmdebstrap: $(grep -m 1 '^E:' "$work/log")"
printf 'FROM scratch\nADD base.tar /\nLABEL beattrack.recipe=%s\n' "$recipe-$suite" >"$work/Dockerfile"
# The processor that emulate.sh's qemu imitates; its default has pointer authentication, which is slow.
[ "$arch" != arm64 ] || echo 'ENV QEMU_CPU=cortex-a76' >>"$work/Dockerfile"
# The classic builder: BuildKit of older engines labels FROM scratch with the host's architecture.
DOCKER_BUILDKIT=0 docker build --quiet --platform "linux/$arch" --tag "$image" "$work" >/dev/null 2>"$work/log" ||
    { cat "$work/log" >&2 && exit 1; }
