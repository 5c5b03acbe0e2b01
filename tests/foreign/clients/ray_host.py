"""Ray Serve with docs/deploy/ray_serve.py. Arguments: folder of the file, port; runs until its input ends."""

import sys

import ray
from ray import serve

folder, port = sys.argv[1:]
sys.path.insert(0, folder)

from ray_serve import app  # noqa: E402 - in that folder

ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": folder}})
serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
serve.run(app)
print("serving", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
