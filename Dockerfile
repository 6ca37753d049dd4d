# MES without a runtime; `docker compose up -d` runs it with Ollama.
#
# The base image is pinned by its digest, which `make image-digests` renews, and each library by its
# hashes in deploy/requirements.txt, which `make image-requirements` renews (docs/operations.md).

FROM python:3.11.17-slim-bookworm@sha256:0a310eeecf4e1f5a0743f9a6520c90c88d089c903ca5fd283f501e3a805f5f89 AS build
WORKDIR /src
COPY deploy/requirements.txt deploy/requirements-build.txt ./
# The virtual environment is copied into the final image, so it is made without pip.
RUN python -m venv --without-pip /opt/mes \
    && pip --python /opt/mes/bin/python install --no-cache-dir --require-hashes \
        --only-binary :all: --requirement requirements.txt \
    && pip install --no-cache-dir --require-hashes --only-binary :all: \
        --requirement requirements-build.txt
COPY setup.cfg pyproject.toml README.md ./
COPY mes mes
# Without another download: it would not be checked.
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index --wheel-dir wheels . \
    && pip --python /opt/mes/bin/python install --no-cache-dir --no-deps --no-index wheels/*.whl

FROM python:3.11.17-slim-bookworm@sha256:0a310eeecf4e1f5a0743f9a6520c90c88d089c903ca5fd283f501e3a805f5f89
RUN pip uninstall --yes pip setuptools wheel \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin mes \
    && install --directory --owner=mes --group=mes --mode=700 /var/lib/mes
COPY --from=build /opt/mes /opt/mes
WORKDIR /app
# With these modes, because those of a private clone could not be read by the user of the container.
COPY --chmod=755 deploy/docker-entrypoint.sh /usr/local/bin/
COPY --chmod=644 gunicorn.conf.py wsgi.py ./
COPY --chmod=644 config/models.json config/
# The service and the command `mes` read the key in .env, which the entrypoint creates.
RUN ln -s /var/lib/mes/env .env
# The API keys. A new volume gets the owner and the mode of this folder.
VOLUME /var/lib/mes
# The state directory is in /dev/shm, which every container has; nothing else is written. The keys
# file is a path and no secret.
# hadolint ignore=DL3064
ENV PATH=/opt/mes/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8001 \
    MES_API_KEYS_FILE=/var/lib/mes/keys.json
USER 10001
EXPOSE 8001
# Checks the process only. With /ready MES would be restarted whenever Ollama is down.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
# The entrypoint is replaced by the command, so that gunicorn receives the signals.
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
