# The image of every node on Kubernetes: see jobs/rayjob.yaml and jobs/rayservice.yaml.
#
#   docker build --tag registry.example/caslie:0.2.0 .
#   docker push registry.example/caslie:0.2.0
#
# Ray and Python as in cluster.yaml, with the CUDA compiler that vLLM's kernels may need.
FROM rayproject/ray:2.60.0-py311-gpu

WORKDIR /home/ray/caslie
COPY --chown=ray:users pyproject.toml README.md LICENSE ./
COPY --chown=ray:users caslie_ray ./caslie_ray
COPY --chown=ray:users jobs ./jobs
RUN pip install --no-cache-dir '.[vllm]'
