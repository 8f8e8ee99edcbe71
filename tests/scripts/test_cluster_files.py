"""scripts/cluster: the files for Kubernetes and clouds, held against the fields that KubeRay's API reference and
SkyPilot's YAML reference name (as read in November 2026), and their commands against this harness. Nothing starts a
cluster."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typer.main import get_command

from harness import api
from harness.cli.app import app
from tests.helpers.command import ROOT

PLACE = ROOT / "scripts" / "cluster"


class Part(BaseModel):
    """Part of a file: only fields that are named, and no value taken for another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[EPTGMk]i?)?$")]

# ------------------------------------------------------------------------------------------------------------- KubeRay


class Metadata(Part):
    name: Name
    namespace: Name = "default"
    labels: dict[str, str] = {}


class Resources(Part):
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class Mount(Part):
    name: Name
    mountPath: Annotated[str, Field(pattern="^/")]
    readOnly: bool = False


class Container(Part):
    name: Name
    image: str
    command: list[str] = []
    args: list[str] = []
    env: list[dict[str, Any]] = []
    resources: Resources
    volumeMounts: list[Mount] = []


class Claim(Part):
    claimName: Name
    readOnly: bool = False


class Volume(Part):
    name: Name
    persistentVolumeClaim: Claim


class Pod(Part):
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume] = []
    nodeSelector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    serviceAccountName: str = ""


class Template(Part):
    metadata: Metadata | None = None
    spec: Pod


class HeadGroup(Part):
    rayStartParams: dict[str, str]
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    template: Template


class WorkerGroup(Part):
    groupName: str
    replicas: Annotated[int, Field(ge=0)]
    minReplicas: Annotated[int, Field(ge=0)]
    maxReplicas: Annotated[int, Field(ge=0)]
    numOfHosts: int = 1
    suspend: bool = False
    rayStartParams: dict[str, str] = {}
    template: Template


class RayCluster(Part):
    rayVersion: str
    enableInTreeAutoscaling: bool = False
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = []


class JobSpec(Part):
    entrypoint: str
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"
    backoffLimit: Annotated[int, Field(ge=0)] = 0
    activeDeadlineSeconds: int | None = None
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: int = 0
    runtimeEnvYAML: str = ""
    suspend: bool = False
    rayClusterSpec: RayCluster


class RayJob(Part):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


# ------------------------------------------------------------------------------------------------------------ SkyPilot


class Hardware(Part):
    infra: str = ""
    accelerators: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+(:\d+)?$")]
    cpus: Annotated[str, Field(pattern=r"^\d+\+?$")] | int = 1
    memory: Annotated[str, Field(pattern=r"^\d+\+?$")] | int = 1
    instance_type: str = ""
    use_spot: bool = False
    disk_size: int = 256
    image_id: str = ""
    autostop: dict[str, Any] = {}
    job_recovery: str | dict[str, Any] = {}


class Bucket(Part):
    name: Name
    source: str = ""
    store: Literal["s3", "gcs", "azure", "r2", "ibm", "oci", ""] = ""
    mode: Literal["MOUNT", "COPY", "MOUNT_CACHED"] = "MOUNT"
    persistent: bool = True


class Task(Part):
    name: Name
    workdir: str = ""
    num_nodes: Annotated[int, Field(ge=1)] = 1
    resources: Hardware
    envs: dict[str, str] = {}
    secrets: dict[str, str] = {}
    file_mounts: dict[str, str | Bucket] = {}
    setup: str = ""
    run: str


FILES = {"kuberay.yaml": RayJob, "skypilot.yaml": Task}


@pytest.mark.parametrize("name", FILES)
def test_the_file_has_the_fields_of_its_schema(name):
    data = yaml.safe_load((PLACE / name).read_text())
    FILES[name].model_validate(data)
    with pytest.raises(ValidationError):  # else the check would pass whatever stands there
        FILES[name].model_validate(data | {"nmae": "x"})


@pytest.mark.parametrize(("name", "field"), [("kuberay.yaml", ("spec", "entrypoint")), ("skypilot.yaml", ("run",))])
def test_the_command_is_one_of_this_harness(name, field):
    text = yaml.safe_load((PLACE / name).read_text())
    for key in field:
        text = text[key]
    line = re.search(r"-m harness (run .*?)(?<!\\)(\n|$)", text, re.DOTALL)
    words = shlex.split(line[1].replace("\\\n", " "))
    options = {option for parameter in get_command(app).commands["run"].params for option in parameter.opts}
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given.keys() <= options and given["--executor"] == "ray"
    assert api.cells(given["--task"], given["--reward"], given["--profile"], given["--seeds"])


def test_all_nodes_run_what_is_tested_and_see_the_results():
    spec = RayJob.model_validate(yaml.safe_load((PLACE / "kuberay.yaml").read_text())).spec
    cluster = spec.rayClusterSpec
    assert f"ray=={cluster.rayVersion}\n" in (ROOT / "constraints.txt").read_text()
    pods = [cluster.headGroupSpec.template.spec, *(group.template.spec for group in cluster.workerGroupSpecs)]
    assert len({pod.containers[0].image for pod in pods}) == 1
    (out,) = re.findall(r"--out (\S+)", spec.entrypoint)
    for pod in pods:
        (mount,) = (each.name for each in pod.containers[0].volumeMounts if each.mountPath == out)
        assert mount in [volume.name for volume in pod.volumes]
