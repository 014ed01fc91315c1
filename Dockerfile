# One image for every service: `docker run natterlog gateway|llm-worker|processor|store|up`.
FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /venv
COPY requirements.txt .
RUN /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml .
COPY shared shared
COPY services services
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home natterlog \
    && install -d -o natterlog -g natterlog -m 700 /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NATTERLOG_DATA_DIR=/data \
    NATTERLOG_LOG_FORMAT=json
USER natterlog
WORKDIR /data
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["natterlog"]
CMD ["up"]
