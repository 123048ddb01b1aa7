# The runtime for NVIDIA Jetson boards: the command beattrack; no torch, no compiler, no trainer.
#
#   docker build -f docker/jetson.Dockerfile -t beattrack-jetson .
#
# JETPACK is 6 (Ubuntu 22.04, Python 3.10) or 7 (Ubuntu 24.04, Python 3.12). BASE_IMAGE names
# another base instead: a Debian or Ubuntu with Python 3.10 to 3.12. BuildKit is needed. Where pip
# needs settings of yours, lend them: --secret id=pip,src=/etc/pip.conf. docs/jetson.md says more.
ARG JETPACK=6
ARG BASE_IMAGE=jetpack${JETPACK}

FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0 AS jetpack6

FROM nvcr.io/nvidia/cuda:13.2.0-cudnn-runtime-ubuntu24.04 AS jetpack7

FROM ${BASE_IMAGE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get -o Acquire::Languages=none update; \
    apt-get install -y --no-install-recommends python3 python3-venv
# ALSA's way to a PulseAudio server. The whole package would bring ffmpeg for its AC-3 encoder,
# 160 MB that nobody uses here.
WORKDIR /alsa
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get download libasound2-plugins; \
    dpkg-deb --fsys-tarfile libasound2-plugins_*.deb | tar -x --wildcards \
        './usr/lib/*/alsa-lib/*_pulse.so' '*/50-pulseaudio.conf' './usr/share/doc/*/copyright'; \
    rm ./*.deb
WORKDIR /build

# The locked packages first: they change seldom. --system-site-packages lets the code see what the
# base brings (TensorRT's modules); --ignore-installed, that a lock's line is never met by it.
COPY docker/build.lock docker/runtime.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv tools; \
    tools/bin/pip install --quiet --require-hashes --only-binary=:all: -r build.lock; \
    python3 -m venv --system-site-packages --without-pip /opt/beattrack; \
    tools/bin/pip --python /opt/beattrack/bin/python install --quiet --no-deps --no-compile \
        --ignore-installed --require-hashes --only-binary=:all: -r runtime.lock

# onnxruntime-gpu replaces the CPU's onnxruntime if a wheel is given, by address or in docker/wheels/.
ARG ORT_WHEEL_URL=
ARG ORT_WHEEL_SHA256=
COPY docker/wheels/ wheels/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    wheel=${ORT_WHEEL_URL:-$(find "$PWD/wheels" -name '*.whl' -printf 'file://%p\n')}; \
    [ -n "$wheel" ] || exit 0; \
    if [ -z "$ORT_WHEEL_SHA256" ]; then \
        echo "error: $wheel needs its hash: --build-arg ORT_WHEEL_SHA256=..." >&2; exit 1; \
    fi; \
    echo "$wheel --hash=sha256:$ORT_WHEEL_SHA256" >gpu.lock; \
    tools/bin/pip --python /opt/beattrack/bin/python uninstall --quiet --yes onnxruntime; \
    tools/bin/pip --python /opt/beattrack/bin/python install --quiet --no-deps --no-compile \
        --require-hashes --only-binary=:all: -r gpu.lock

COPY LICENSE CREDITS.md ./
COPY shared/pyproject.toml shared/
COPY shared/src/ shared/src/
COPY runtime/pyproject.toml runtime/
COPY runtime/src/ runtime/src/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir own ./shared ./runtime; \
    tools/bin/pip --python /opt/beattrack/bin/python install --quiet --no-deps --no-compile \
        --no-index own/*.whl; \
    install -D -m 644 -t /opt/beattrack/share/doc LICENSE CREDITS.md

FROM ${BASE_IMAGE}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG DEBIAN_FRONTEND=noninteractive
# tini is process 1, so that signals reach the command from its first moment on.
# Uid 1000 is the first user of a board: what is written into a mounted folder is his. The groups are
# those of sound cards and of the board's GPU.
# hadolint ignore=DL3008
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get -o Acquire::Languages=none update; \
    apt-get install -y --no-install-recommends python3 libportaudio2 libpulse0 tini; \
    rm -rf /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log; \
    id 1000 >/dev/null 2>&1 || \
        useradd --uid 1000 --no-create-home --home-dir / --shell /usr/sbin/nologin beattrack; \
    usermod --append --groups audio,video "$(id -nu 1000)"
COPY --from=build /alsa/ /
COPY --from=build /opt/beattrack /opt/beattrack
COPY docker/inventory.py /usr/share/beattrack/
# Proves that every library is found, and compiles just the modules that are used: nobody who runs
# the image can write there, so that the first start would be repeated at every start.
RUN --mount=type=tmpfs,target=/tmp \
    HOME=/tmp /opt/beattrack/bin/python -c "import av, onnxruntime, sounddevice, soundfile; \
        from beattrack_runtime import cli, following, microphone, session; \
        from beattrack_runtime.live import calibrate, show, stdin, tcp; \
        from beattrack_runtime.live.doctor import examination; \
        from beattrack_runtime.live.outputs import click, midi, os2l, osc, serial, web; \
        from beattrack_runtime.outputs import drawing, lines, plot"; \
    /opt/beattrack/bin/python -B /usr/share/beattrack/inventory.py /usr/share/beattrack
ENV PATH=/opt/beattrack/bin:$PATH LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title=beattrack-jetson \
    org.opencontainers.image.description="Real-time beats, downbeats and tempo from a microphone or a file" \
    org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.revision=$REVISION \
    org.opencontainers.image.source=$SOURCE \
    org.opencontainers.image.licenses=MIT

WORKDIR /data
USER 1000
ENTRYPOINT ["/usr/bin/tini", "-s", "--", "/opt/beattrack/bin/beattrack"]
