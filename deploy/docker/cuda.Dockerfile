# syntax=docker/dockerfile:1
# A server on NVIDIA GPUs. CUDA and cuDNN come from their Python packages; the host needs the driver
# and the NVIDIA container toolkit. Build from the root of a checkout:
#   docker build -f deploy/docker/cuda.Dockerfile -t poolc:cuda .
#   docker run --gpus all -p 8000:8000 -v ./bge-m3-cuda:/models/m:ro poolc:cuda serve /models/m
FROM python:3.12-slim AS build
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.12-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/poolc-*.whl)[gpu,serve]" \
    && rm -r /wheels \
    && useradd --create-home --uid 10001 poolc \
    && install -d -o poolc -g poolc /home/poolc/cache
USER poolc
ENV POOLC_CACHE=/home/poolc/cache POOLC_HOST=0.0.0.0 POOLC_PORT=8000
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"POOLC_PORT\"]}/health')"]
ENTRYPOINT ["poolc"]
CMD ["--help"]
