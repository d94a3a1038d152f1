# des4 in a container: it predicts a folder, or answers one POST of an image. To build and run it: docs/deployment.md.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
# An address where pip looks for torch as well, such as that of its builds for CPUs, which make a small image.
ARG TORCH_INDEX=""
ARG EXTRAS="bands,hub,large,serve"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/des4
ENV PATH=/opt/des4/bin:$PATH
WORKDIR /build
COPY constraints.txt ./
RUN pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY des4 des4
# triton compiles kernels for trainings that ask for it, and is a gigabyte; prediction does without.
RUN pip install -c constraints.txt ".[$EXTRAS]" && pip uninstall --yes triton

FROM python:${PYTHON}-slim
COPY --from=build /opt/des4 /opt/des4
# Caches lie where any user may write, as the container may be run with --user.
ENV PATH=/opt/des4/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    HF_HOME=/tmp/huggingface
RUN useradd --create-home --uid 1000 des4
USER 1000
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["des4"]
CMD ["--help"]
