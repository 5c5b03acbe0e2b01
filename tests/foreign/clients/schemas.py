"""Checks YAML against the models of the Kubernetes and KServe clients. Arguments: files; prints what is wrong."""

import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import kserve
import yaml
from kubernetes import client


def described(**fields: str) -> Any:
    """A model as those of the Kubernetes client are, from its fields. KubeRay has no client with models."""

    class Described:
        attribute_map: ClassVar = {name: name for name in fields}
        openapi_types: ClassVar = fields

        def __init__(self, **values: Any) -> None:
            """Takes any of the fields."""

    return Described


# What KubeRay 1.4 knows of each, as far as docs/deploy could use it.
KUBERAY = {
    "RayJob": described(apiVersion="str", kind="str", metadata="V1ObjectMeta", spec="RayJobSpec"),
    "RayJobSpec": described(
        activeDeadlineSeconds="int",
        backoffLimit="int",
        entrypoint="str",
        entrypointNumCpus="float",
        rayClusterSpec="RayClusterSpec",
        runtimeEnvYAML="str",
        shutdownAfterJobFinishes="bool",
        submissionMode="str",
        submitterPodTemplate="V1PodTemplateSpec",
        suspend="bool",
        ttlSecondsAfterFinished="int",
    ),
    "RayClusterSpec": described(
        autoscalerOptions="AutoscalerOptions",
        enableInTreeAutoscaling="bool",
        headGroupSpec="HeadGroupSpec",
        rayVersion="str",
        workerGroupSpecs="List[WorkerGroupSpec]",
    ),
    "AutoscalerOptions": described(idleTimeoutSeconds="int", upscalingMode="str", resources="V1ResourceRequirements"),
    "HeadGroupSpec": described(rayStartParams="Dict[str, str]", serviceType="str", template="V1PodTemplateSpec"),
    "WorkerGroupSpec": described(
        groupName="str",
        maxReplicas="int",
        minReplicas="int",
        numOfHosts="int",
        rayStartParams="Dict[str, str]",
        replicas="int",
        template="V1PodTemplateSpec",
    ),
}
ROOTS = {
    ("apps/v1", "Deployment"): client.V1Deployment,
    ("batch/v1", "CronJob"): client.V1CronJob,
    ("batch/v1", "Job"): client.V1Job,
    ("ray.io/v1", "RayJob"): KUBERAY["RayJob"],
    ("v1", "Service"): client.V1Service,
    ("serving.kserve.io/v1beta1", "InferenceService"): kserve.V1beta1InferenceService,
}


def wrong(value: Any, kind: str, place: str) -> list[str]:
    """What is wrong with a value, which a model says to be of this kind."""
    if found := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{place}: no list"]
        return [line for number, item in enumerate(value) for line in wrong(item, found[1], f"{place}[{number}]")]
    if found := re.fullmatch(r"(?:dict\(|Dict\[)(\w+), (.+)[)\]]", kind):
        if not isinstance(value, dict):
            return [f"{place}: no mapping"]
        return [line for key, item in value.items() for line in wrong(item, found[2], f"{place}.{key}")]
    types = {"str": str, "int": int, "bool": bool, "float": float}
    if kind in types:
        right = isinstance(value, types[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if right else [f"{place}: {value!r} is no {kind}"]
    if kind in ("object", "IntOrString", "K8sQuantity", "datetime", "ResourceQuantity"):
        return []
    model = KUBERAY.get(kind) or getattr(client, kind, None) or getattr(kserve, kind, None)
    if model is None:
        return [f"{place}: no model {kind}"]
    return of_model(value, model, place)


def of_model(value: Any, model: Any, place: str) -> list[str]:
    """What is wrong with a mapping: keys that the model lacks, values of another kind, and what the model refuses."""
    if not isinstance(value, dict):
        return [f"{place}: no mapping"]
    names = {key: name for name, key in model.attribute_map.items()}
    found = [f"{place}: no field {key}" for key in value if key not in names]
    for key in value.keys() & names.keys():
        found += wrong(value[key], model.openapi_types[names[key]], f"{place}.{key}")
    try:
        model(**{names[key]: item for key, item in value.items() if key in names})
    except ValueError as error:
        found.append(f"{place}: {error}")
    return found


for argument in sys.argv[1:]:
    for document in yaml.safe_load_all(Path(argument).read_text()):
        root = ROOTS[document["apiVersion"], document["kind"]]
        for line in of_model(document, root, document["kind"]):
            print(f"{Path(argument).name}: {line}")
