# planet_rssm with its locked packages; one image for machines with and without a GPU.
#     docker build -t planet .
#     docker run --rm --gpus all -v "$PWD/runs:/work/runs" planet train quickstart
# Smaller, without CUDA: --build-arg TORCH_INDEX=URL, the index of torch's CPU builds, which torch's
# own installation page names.
FROM python:3.12-slim AS build
ARG TORCH_INDEX=
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The lock is complete but for what torch itself pins, CUDA say.
RUN grep -v '^torch==' requirements.lock > others.lock \
    && grep '^torch==' requirements.lock > torch.lock \
    && pip install --no-deps -r others.lock \
    && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX" --no-deps} -r torch.lock -c others.lock
COPY planet_rssm planet_rssm
COPY configs configs
RUN pip install --no-deps --no-build-isolation .

FROM python:3.12-slim
# GL in software, for tasks and films that the ray caster does not draw
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libosmesa6 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH
RUN useradd --create-home planet && mkdir /work && chown planet /work
USER planet
WORKDIR /work
ENTRYPOINT ["planet"]
CMD ["--help"]
