# Build: a virtual environment from the hash-locked requirements, kernels compiled into it.
FROM python:3.11-slim-bookworm AS build
WORKDIR /app
COPY requirements/ requirements/
RUN python -m venv /opt/explaind \
 && /opt/explaind/bin/python -m pip install --no-cache-dir --require-hashes --only-binary=:all: \
      -r requirements/uv.txt \
 && /opt/explaind/bin/uv --no-config pip install --no-cache --no-build --compile-bytecode \
      --require-hashes --python /opt/explaind/bin/python \
      -r requirements/run.txt -r requirements/build.txt
COPY pyproject.toml README.md ./
COPY service/ service/
COPY explainers/ explainers/
COPY schemas/ schemas/
# -P: what is compiled is what was installed, not the copy beside it; a cache knows its source's path.
ENV NUMBA_CPU_NAME=generic NUMBA_CACHE_DIR=/opt/explaind/share/explaind-kernels
RUN /opt/explaind/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --no-index . \
 && mkdir -p "$NUMBA_CACHE_DIR" \
 && /opt/explaind/bin/python -P -m service.compiling

# Run: nothing but the environment, as a user without rights who cannot change it. The root file
# system may be read-only; /data is written, and /tmp.
FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install --no-install-recommends -y libgomp1=12.* \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home explaind \
 && install -d -o explaind -m 0700 /data /registry
COPY --from=build /opt/explaind /opt/explaind
# The path of the keys file is no secret.
# hadolint ignore=DL3064
ENV PATH=/opt/explaind/bin:$PATH \
    NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_DIR=/opt/explaind/share/explaind-kernels \
    EXPLAIND_DATA_DIR=/data \
    EXPLAIND_HOST=0.0.0.0 \
    EXPLAIND_API_KEYS_FILE=/data/keys.json
# docker build --build-arg GIT_REVISION="$(git rev-parse HEAD)" . : what records say they come from.
ARG GIT_REVISION=
ENV EXPLAIND_GIT_REVISION=$GIT_REVISION
USER 10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", \
  "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["explaind"]
CMD ["serve"]
