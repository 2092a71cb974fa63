# docker build -t beton . && docker run --gpus all --shm-size 8g -it beton
FROM python:3.12-slim-bookworm
WORKDIR /beton
COPY . .
RUN ./setup.sh && rm -rf ~/.cache /var/lib/apt/lists/*
ENV PATH=/beton/.venv/bin:$PATH
CMD ["bash"]
