# syntax=docker/dockerfile:1
# Images for a peer, a bootstrap node and a gateway, on a CPU or a GPU (docs/operations.md says how to run them):
#
#     docker build --target peer --tag swarm-peer .
#     docker build --target peer --tag swarm-peer:cuda --build-arg TORCH=cuda .
#
# A GPU host needs NVIDIA's driver and container toolkit, and no CUDA: torch brings its own.
# x86-64 only, as libp2p's daemon in hivemind's wheel is.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS python
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Everything but our own code: it changes seldom, and torch is gigabytes.
FROM python AS libraries
ARG TORCH=cpu
WORKDIR /build
COPY requirements.lock pyproject.toml ./
RUN python -m venv /opt/swarm
RUN if [ "$TORCH" = cpu ]; then index="--index-url https://download.pytorch.org/whl/cpu"; fi \
    && /opt/swarm/bin/pip install $index "$(grep '^torch==' requirements.lock)"
# The lock also pins what only developers need, so it is what versions are held to, not what is installed.
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > needed.txt \
    && /opt/swarm/bin/pip install --constraint requirements.lock --requirement needed.txt

FROM python AS wheel
WORKDIR /build
COPY pyproject.toml README.md LICENSE bootstrap.toml ./
COPY swarm swarm
COPY peers peers
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python AS swarm
RUN groupadd --gid 10001 swarm && useradd --uid 10001 --gid swarm --no-create-home --home-dir /state swarm \
    && install --directory --owner swarm --group swarm --mode 0700 /state
COPY --from=libraries /opt/swarm /opt/swarm
COPY --from=wheel /wheels /wheels
RUN /opt/swarm/bin/pip install --no-deps /wheels/*.whl
# Keys, caches and downloaded weights: what has to outlive a container.
ENV PATH=/opt/swarm/bin:$PATH HOME=/state SWARM_HOME=/state SWARM_CACHE=/state/cache HF_HOME=/state/huggingface
VOLUME /state
WORKDIR /state
USER 10001:10001
STOPSIGNAL SIGTERM

FROM swarm AS bootstrap
EXPOSE 31337 9464
HEALTHCHECK --start-period=60s --interval=30s --timeout=15s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/ready', timeout=12)"]
ENTRYPOINT ["swarm-peer", "bootstrap", "--metrics", "0.0.0.0:9464"]

FROM swarm AS gateway
EXPOSE 8000
# Healthy is a gateway that answers; whether the swarm is whole is asked at /ready, and no restart would mend it.
HEALTHCHECK --start-period=120s --interval=30s --timeout=10s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=8)"]
ENTRYPOINT ["swarm", "serve", "--host", "0.0.0.0"]

# The last one is what `docker build .` makes.
FROM swarm AS peer
EXPOSE 31330 9464
# Healthy is a peer that runs; while it loads or moves, it is not ready, and a restart would only begin anew.
HEALTHCHECK --start-period=60s --interval=30s --timeout=10s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/health', timeout=8)"]
ENTRYPOINT ["swarm-peer", "join", "--port", "31330", "--metrics", "0.0.0.0:9464"]
