# The environment is built where pip is, and carried into an image that has no build tools.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY s3flow ./s3flow
RUN python -m venv /opt/s3flow \
 && /opt/s3flow/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.11-slim
# A fixed number, so that volumes can be given to it: chown 10440:10440 /srv/s3flow
RUN groupadd --gid 10440 s3flow \
 && useradd --uid 10440 --gid 10440 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin s3flow \
 && install --directory --owner=10440 --group=10440 --mode=0700 /var/lib/s3flow
COPY --from=build /opt/s3flow /opt/s3flow
# Reports go where there is a volume; the configuration's folder is most often read only.
ENV PATH=/opt/s3flow/bin:$PATH PYTHONUNBUFFERED=1 S3FLOW__DAEMON__REPORTS=/var/lib/s3flow/reports
USER 10440:10440
VOLUME /var/lib/s3flow
# SIGTERM drains for daemon.drain_timeout: give the container 40 s to stop (docker stop -t 40).
STOPSIGNAL SIGTERM
# Asks daemon.listen's default address, from inside the container, and needs no password. For who is outside of it:
# S3FLOW__DAEMON__LISTEN=0.0.0.0:9440 with S3FLOW__DAEMON__LISTEN_PASSWORD, which other addresses are refused without.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9440/healthz', timeout=4)"]
ENTRYPOINT ["s3flow"]
CMD ["run", "--config", "/etc/s3flow/config.toml"]
