# A node that serves the app in this folder; see docker-compose.yml.
FROM python:3.13-slim
WORKDIR /app
COPY pyproject.toml README.md ./
COPY reactor ./reactor
RUN pip install --no-cache-dir ".[postgres]"
COPY schema.py ./
COPY app_functions ./app_functions
RUN useradd --create-home reactor && chown reactor /app
USER reactor
EXPOSE 3210
# As process 1 it takes SIGTERM itself, and stops as it should.
CMD ["reactor", "start"]
