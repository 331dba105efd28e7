# mim on GPU nodes. How to build and run it: docs/how-to/docker.md
#
# "base" and not "runtime": the wheels of requirements.lock bring cuBLAS, cuDNN, NCCL and the rest of CUDA 13.2
# themselves, and "runtime" would add a second, unused copy. What the base gives is the container toolkit's settings
# and the forward-compatibility driver libraries of the same CUDA 13.2.
ARG BASE_IMAGE=docker.io/nvidia/cuda:13.2.1-base-ubuntu24.04
FROM ${BASE_IMAGE}

# tini: process 1 that hands signals on and reaps data-loading workers. The ibverbs pair: NCCL looks for it when it
# runs, and falls back to plain TCP between nodes without it.
# Versions are not pinned: the distribution's archive keeps only the newest of each, so a pin would soon fail to build.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates \
        ibverbs-providers \
        libibverbs1 \
        python3 \
        python3-venv \
        tini \
    && rm -rf /var/lib/apt/lists/*

# The folders are open to every user, like /tmp, so that `docker run --user "$(id -u):$(id -g)"` works as well.
RUN groupadd --gid 10001 mim \
    && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /home/mim mim \
    && install --directory --mode=1777 /home/mim /workspace/data /workspace/runs

ENV PATH="/opt/venv/bin:${PATH}"

# The large layer, made again only when the lock changes.
COPY requirements.lock /opt/mim/
RUN python3 -m venv /opt/venv \
    && pip install --no-cache-dir --require-hashes --requirement /opt/mim/requirements.lock

COPY pyproject.toml README.md LICENSE /opt/mim/
COPY mim/ /opt/mim/mim/
RUN pip install --no-cache-dir --no-deps --no-build-isolation /opt/mim \
    && rm -rf /opt/mim/build /opt/mim/mim.egg-info

# COPY keeps the modes of the checkout, which may be closed to others.
WORKDIR /workspace
COPY train.py finetune.py evaluate.py ./
COPY configs/ configs/
RUN chmod -R a+rX /workspace

# USER as a variable: for libraries that ask for a user's name, which a --user unknown to the image does not have.
ENV HOME=/home/mim \
    USER=mim \
    PYTHONUNBUFFERED=1 \
    NO_ALBUMENTATIONS_UPDATE=1 \
    WANDB_MODE=offline

LABEL org.opencontainers.image.title="mim" \
      org.opencontainers.image.description="Masked image modelling for dental and other X-rays: pretrain, fine-tune, evaluate" \
      org.opencontainers.image.licenses="Apache-2.0"

USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["python", "train.py", "--help"]
