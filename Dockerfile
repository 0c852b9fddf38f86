# The service in a container, with a PyTorch for the CPU (default) or one that brings CUDA:
#   docker build -t ebseg:0.1.0-cpu .
#   docker build -t ebseg:0.1.0-cuda --build-arg TARGET=cuda .
#   docker build -t ebseg-training:0.1.0 --build-arg TARGET=cuda --build-arg LAYER=training .
#
# TARGET     cpu or cuda
# LAYER      of the locks in requirements/: serving, or training, which has what serving needs as well
# TORCH_CPU  index that has PyTorch without CUDA, which is a tenth of the size; "" takes pip's own
# BASE       a Debian with Python 3.11 or newer among its packages
ARG TARGET=cpu
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
# Debian's versions are not pinned: within a release they change for security alone, and old ones leave the mirrors
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*

FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/ebseg
ENV PATH=/opt/ebseg/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build

# PyTorch with what it needs, by far the largest: a layer that only its own lock changes. Nothing is resolved, here and
# below: the locks name every package.
FROM build AS torch-cuda
COPY requirements/torch.txt /build/
RUN pip install --no-cache-dir --no-deps --requirement torch.txt

FROM build AS torch-cpu
ARG TORCH_CPU=https://download.pytorch.org/whl/cpu
COPY requirements/torch.txt /build/
# The same but for PyTorch itself, which that index has under the same version, and but for CUDA's libraries. Without
# hashes, since the lock has those of the files with CUDA.
RUN awk '/^[^ ]/ { cuda = /^(torch|torchvision|triton)==|^(nvidia|cuda)-/ } !cuda' torch.txt > others.txt \
    && sed -n 's/^\(torch\|torchvision\)==\([^ ]*\).*/\1==\2+cpu/p' torch.txt > torch-cpu.txt \
    && pip install --no-cache-dir --no-deps --requirement others.txt \
    && pip install --no-cache-dir --no-deps ${TORCH_CPU:+--index-url "${TORCH_CPU}"} --requirement torch-cpu.txt

# hadolint ignore=DL3006
FROM torch-${TARGET} AS torch

# --root writes only what is not installed yet: /dependencies and /package become layers of their own, the first of
# 300 MB, the second of 10 MB and the only one that a new source changes
FROM torch AS dependencies
ARG LAYER=serving
COPY requirements /build/requirements
RUN python3 -m requirements.install "${LAYER}" --list > layer.txt \
    && pip install --no-cache-dir --no-deps --root /dependencies --requirement layer.txt

FROM torch AS package
COPY pyproject.toml /build/
COPY README.md LICENSE ebseg.py /build/
COPY model /build/model
COPY service /build/service
COPY training /build/training
COPY client /build/client
RUN pip install --no-cache-dir --no-deps --no-build-isolation --root /package ./client .

FROM python AS runtime
RUN groupadd --gid 10001 ebseg \
    && useradd --uid 10001 --gid ebseg --home-dir /tmp --no-create-home --shell /usr/sbin/nologin ebseg \
    && install --directory --owner ebseg --group ebseg /registry
COPY --from=torch /opt/ebseg /opt/ebseg
COPY --from=dependencies /dependencies/opt/ebseg /opt/ebseg
COPY --from=package /package/opt/ebseg /opt/ebseg
# Nothing but /tmp is written, so the root file system may be read-only
ENV PATH=/opt/ebseg/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    EBSEG_HOST=0.0.0.0
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
# Alive, not ready: a container that loads or drains must not be restarted for it
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + (os.environ.get('EBSEG_PORT') or os.environ.get('PORT') or '8000') + '/livez', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["ebseg"]
CMD ["serve"]

FROM runtime AS target-cpu

FROM runtime AS target-cuda
# What NVIDIA's container runtime lays into the container beside the device
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM target-${TARGET}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="ebseg" \
      org.opencontainers.image.description="Open-vocabulary semantic segmentation as a service" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
