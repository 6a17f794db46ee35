# syntax=docker/dockerfile:1
# A server on a CPU: runtime and server, no PyTorch. Build from the root of a checkout:
#   docker build -f deploy/docker/cpu.Dockerfile -t poolc:cpu .
#   docker run -p 8000:8000 -v ./minilm:/models/minilm:ro poolc:cpu serve /models/minilm
# To bake an artifact in: FROM poolc:cpu, COPY minilm /models/minilm, CMD ["serve", "/models/minilm"].
FROM python:3.12-slim AS build
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.12-slim
COPY --from=build /wheels /wheels
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \
        "$(echo /wheels/poolc-*.whl)[cpu,serve]" \
    && rm -r /wheels /tmp/constraints.txt \
    && useradd --create-home --uid 10001 poolc \
    && install -d -o poolc -g poolc /home/poolc/cache
USER poolc
# Where artifacts are remembered as verified; a volume keeps it.
ENV POOLC_CACHE=/home/poolc/cache POOLC_HOST=0.0.0.0 POOLC_PORT=8000
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"POOLC_PORT\"]}/health')"]
ENTRYPOINT ["poolc"]
CMD ["--help"]
