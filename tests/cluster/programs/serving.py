"""Serves an artifact on a local cluster of Ray, and does what lines of standard input say.

``deploy ARGS``: (again) by the arguments of ``poolc.ray.app``, as JSON; says ``deployed REPLICAS``.
``check FILE``: whether Ray Serve takes a file as a config; says ``deployed 0``.
``end``. The first argument is the port.
"""

from __future__ import annotations

import json
import sys

import ray
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema

import poolc

ray.init(num_cpus=8, include_dashboard=False, object_store_memory=1 << 28, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
for line in sys.stdin:
    command, _, rest = line.partition(" ")
    if command.strip() == "end":
        break
    if command == "check":
        with open(rest.strip(), encoding="utf-8") as file:
            ServeDeploySchema.model_validate(yaml.safe_load(file))
        print("deployed 0", flush=True)
        continue
    serve.run(poolc.ray.app(json.loads(rest)))
    deployment = serve.status().applications["default"].deployments["poolc"]
    print("deployed", deployment.replica_states.get("RUNNING", 0), flush=True)
serve.shutdown()
ray.shutdown()
