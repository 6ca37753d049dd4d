# MES without a runtime: `docker compose up` puts it in front of Ollama.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY setup.cfg pyproject.toml README.md ./
COPY mes mes
# pip stays outside of what is installed.
RUN python -m venv --without-pip /opt/mes \
    && pip --python /opt/mes/bin/python install --no-cache-dir .

FROM python:3.11-slim-bookworm
RUN pip uninstall --yes pip setuptools wheel \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin mes
COPY --from=build /opt/mes /opt/mes
WORKDIR /app
COPY gunicorn.conf.py wsgi.py ./
COPY config/models.json config/
# The state is kept in /dev/shm, which every container has; nothing is written anywhere else.
ENV PATH=/opt/mes/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8001
USER 10001
EXPOSE 8001
# Whether the process lives. /ready would have it restarted when Ollama is what is missing.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
# No shell in between, so that gunicorn gets the signals.
CMD ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
