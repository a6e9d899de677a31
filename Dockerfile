# One image for every part: `metering gateway`, `metering worker`, `metering dashboard`, `metering portal`, `metering migrate` and the billing commands.
# It talks to a Kafka and a ClickHouse outside, so the embedded engines (1 GB) stay out: only requirements.txt is installed.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

COPY requirements-build.txt requirements.txt ./
RUN python -m venv /opt/tools \
    && python -m venv --without-pip /opt/metering \
    && /opt/tools/bin/pip install --no-deps --require-hashes --requirement requirements-build.txt \
    && /opt/tools/bin/pip --python /opt/metering/bin/python install \
        --no-deps --no-build-isolation --require-hashes --requirement requirements.txt

COPY pyproject.toml LICENSE README.md ./
COPY schemas schemas
COPY metering metering
COPY ingest ingest
COPY aggregators aggregators
COPY billing_export billing_export
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /build/wheel . \
    && /opt/tools/bin/pip --python /opt/metering/bin/python install --no-deps --no-index /build/wheel/*.whl


FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10001 metering \
    && useradd --system --uid 10001 --gid metering --no-create-home --home-dir /var/lib/metering metering \
    && install --directory --owner metering --group metering /var/lib/metering
COPY --from=build /opt/metering /opt/metering
ENV PATH=/opt/metering/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    METERING_DATA_DIR=/var/lib/metering \
    METERING_GATEWAY_HOST=0.0.0.0 \
    METERING_WORKER_METRICS_HOST=0.0.0.0 \
    METERING_DASHBOARD_HOST=0.0.0.0 \
    METERING_PORTAL_HOST=0.0.0.0
USER 10001:10001
WORKDIR /var/lib/metering
EXPOSE 18080 18081 18082 18083
# For the gateway, which the image runs unless told otherwise; docker-compose.yml has the worker's.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 18080, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["metering"]
CMD ["gateway"]
