# For a machine with an NVIDIA GPU and its container toolkit:
#   docker build -t companion .
#   docker run --gpus all --user "$(id -u)" -v /path/to/data:/data -v "$PWD":/work companion rank breastmnist --out ranking
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /companion
COPY requirements.lock pyproject.toml README.md LICENSE ./
# PyTorch's Linux wheels bring CUDA; only the driver is the host's.
RUN pip install --no-cache-dir -r requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && useradd --create-home user \
  && mkdir /data /work && chown user /data /work
USER user
# Weights and results belong to the mounted folders, and outlast the container.
ENV COMPANION_DATA=/data COMPANION_CACHE=/data/cache TORCH_HOME=/data/torch
WORKDIR /work
ENTRYPOINT ["companion"]
CMD ["--help"]
