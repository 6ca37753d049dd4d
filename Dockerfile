# MES without a runtime; `docker compose up` runs it with Ollama.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY setup.cfg pyproject.toml README.md ./
COPY mes mes
# The virtual environment is copied into the final image, so it is made without pip.
RUN python -m venv --without-pip /opt/mes \
    && pip --python /opt/mes/bin/python install --no-cache-dir .

FROM python:3.11-slim-bookworm
RUN pip uninstall --yes pip setuptools wheel \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin mes
COPY --from=build /opt/mes /opt/mes
WORKDIR /app
COPY gunicorn.conf.py wsgi.py ./
COPY config/models.json config/
# The state directory is in /dev/shm, which every container has; nothing else is written.
ENV PATH=/opt/mes/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8001
USER 10001
EXPOSE 8001
# Checks the process only. With /ready MES would be restarted whenever Ollama is down.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
# Without a shell, so that gunicorn receives the signals.
CMD ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
