"""What cluster.yaml, jobs/runtime_env.yaml and .rayignore promise, asked of Ray's launcher, autoscaler and packager."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
import yaml
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.docker import docker_start_cmds
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated import instance_manager_pb2
from ray.runtime_env import RuntimeEnv

from caslie_ray.cluster.capacity import launcher_capacity
from caslie_ray.cluster.preemption import main as watch_for_preemption
from caslie_ray.pipeline.placement import PoolPlan, size_pools
from caslie_ray.profiles import load_profile

_ROOT = Path(__file__).parents[2]
_TEXT = (_ROOT / "cluster.yaml").read_text(encoding="utf-8")
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_WORLD = {"0.0.0.0/0", "::/0"}
_MIB = 2**20
_MESSAGES: Any = instance_manager_pb2


def written() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(_TEXT)
    return config


def prepared() -> dict[str, Any]:
    """The file as `ray up` has it, with the launcher's defaults and against its schema."""
    config: dict[str, Any] = prepare_config(written())
    validate_config(config)
    return config


class Cloud(NamedTuple):
    """An EC2, over HTTP, and the file as `ray up` has it after it has asked there."""

    ec2: Any
    config: dict[str, Any]
    group: str


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    import boto3  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            host, port = server.get_host_and_port()
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            patch.setenv("AWS_ACCESS_KEY_ID", "testing")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
            # The launcher writes the key that it makes to the home.
            patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
            ec2 = boto3.client("ec2", region_name=written()["provider"]["region"])
            network = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
            group = ec2.create_security_group(GroupName="caslie", Description="caslie", VpcId=network)["GroupId"]
            iam = boto3.client("iam", region_name="us-east-1")
            for name in {node["node_config"]["IamInstanceProfile"]["Name"] for node in node_types().values()}:
                iam.create_instance_profile(InstanceProfileName=name)
            config = prepared()
            for node in config["available_node_types"].values():
                node["node_config"]["SecurityGroupIds"] = [group]
            yield Cloud(ec2, bootstrapped(config), group)
    finally:
        server.stop()


def bootstrapped(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = AWSNodeProvider.fillout_available_node_types_resources(config)
    found: dict[str, Any] = AWSNodeProvider.bootstrap_config(config)
    return found


def node_types() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = written()["available_node_types"]
    return found


def is_spot(node: dict[str, Any]) -> bool:
    return bool(node["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot")


def launched(
    config: dict[str, Any], needs: list[dict[str, float]], available: dict[str, float] | None = None
) -> dict[str, int]:
    """Ask Ray's autoscaler what it launches for work that waits, where nothing runs yet."""
    asked = AutoscalingConfig(config, skip_content_hash=True)
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=asked.get_node_type_configs(),
            max_num_nodes=asked.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(need) for need in needs]),
            recoverable_resource_availabilities=available or {},
        )
    )
    return {request.instance_type: request.count for request in reply.to_launch}


# What is there, and when.


def test_the_launcher_accepts_the_file_and_refuses_one_with_a_typo() -> None:
    config = prepared()
    assert config["available_node_types"].keys() == {"head", "cpu", "gpu_spot", "gpu_on_demand"}
    config["available_node_types"]["gpu_spot"]["min_worker"] = 1
    with pytest.raises(Exception, match="min_worker"):
        validate_config(config)


def test_only_the_head_node_is_permanent() -> None:
    config = AutoscalingConfig(prepared(), skip_content_hash=True)
    assert launched(prepared(), []) == {}
    for name, node in config.get_node_type_configs().items():
        assert node.min_worker_nodes == 0, name
    head = node_types()["head"]
    assert head["max_workers"] == 0
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert not is_spot(head)
    assert config.get_idle_timeout_s() == 600
    total = sum(node["max_workers"] for node in node_types().values())
    assert written()["max_workers"] == total


def test_the_two_gpu_groups_are_the_same_machine_paid_for_in_two_ways() -> None:
    spot, other = copy.deepcopy(node_types()["gpu_spot"]), copy.deepcopy(node_types()["gpu_on_demand"])
    assert is_spot(spot)
    assert not is_spot(other)
    assert spot["priority"] > other["priority"]
    for node in (spot, other):
        del node["priority"], node["max_workers"]
    assert [node.pop("labels")["ray.io/market-type"] for node in (spot, other)] == ["spot", "on-demand"]
    del spot["node_config"]["InstanceMarketOptions"]
    assert spot == other


def test_work_is_scheduled_on_its_node_group(cloud: Cloud) -> None:
    assert launched(cloud.config, [{"CPU": 0.5}] * 64) == {"cpu": 2}
    assert launched(cloud.config, [{"CPU": 2.0, "GPU": 0.5}] * 2) == {"gpu_spot": 1}
    assert launched(cloud.config, [{"CPU": 2.0, "GPU": 1.0}] * 3) == {"gpu_spot": 3}


@pytest.mark.parametrize("name", ["caslie-s", "caslie-m", "caslie-l"])
def test_every_model_of_the_paper_fits_a_machine(cloud: Cloud, name: str) -> None:
    lineup = load_profile(name).lineup
    for role in (lineup.captioner, *lineup.voters, lineup.base):
        for need in (role.resources, role.by_itself().resources):
            bundle = {"CPU": need.cpus, "GPU": need.gpus, "memory": need.memory_gib * 2**30}
            assert launched(cloud.config, [bundle]) == {"gpu_spot": 1}, role.name


@pytest.mark.parametrize("name", ["caslie-s", "caslie-m", "caslie-l"])
def test_staged_fills_every_gpu_machine_with_each_model_in_turn(cloud: Cloud, name: str) -> None:
    config = copy.deepcopy(cloud.config)
    config["available_node_types"]["gpu_on_demand"]["max_workers"] = 0
    limits = launcher_capacity(config)
    assert limits["GPU"] == 8
    lineup = load_profile(name).lineup
    for model in (lineup.captioner, *lineup.voters, lineup.base):
        one = model.by_itself()
        need, spec = one.resources, replace(one.spec(), engine="vllm")
        plan = PoolPlan(one.name, one.name, spec, need.cpus, need.gpus, need.memory_gib, one.pool.min, one.pool.max)
        (sized,) = size_pools([plan], 250_000, limits)
        assert sized.maximum == 8, one.name
        assert launched(config, [sized.needs] * sized.limit) == {"gpu_spot": 8}, one.name


def test_streamed_fills_every_gpu_machine_with_captioners(cloud: Cloud) -> None:
    config = copy.deepcopy(cloud.config)
    config["available_node_types"]["gpu_on_demand"]["max_workers"] = 0
    lineup = load_profile("caslie-m").lineup
    models = [lineup.captioner, *(one for one in lineup.voters if not one.shares_pool(lineup.captioner))]
    plans = [
        PoolPlan(
            one.name, one.name, one.spec(), one.resources.cpus, one.resources.gpus, one.resources.memory_gib,
            one.pool.min, one.pool.max,
        )
        for one in models
    ]  # fmt: skip
    sized = size_pools(plans, 250_000, launcher_capacity(config))
    needs = [plan.needs for plan in sized for _ in range(plan.limit)]
    assert launched(config, needs) == {"gpu_spot": 8}
    captioners, *voters = sized
    assert [plan.limit for plan in voters] == [1] * 4
    assert captioners.limit * captioners.gpus + sum(plan.gpus for plan in voters) > 8 - captioners.gpus


def test_demand_beyond_the_spot_group_uses_on_demand_machines() -> None:
    spot = node_types()["gpu_spot"]["max_workers"]
    assert launched(prepared(), [{"GPU": 1.0}] * (spot + 1)) == {"gpu_spot": spot, "gpu_on_demand": 1}


def test_the_priority_decides_and_can_be_swapped() -> None:
    config = prepared()
    groups = config["available_node_types"]
    groups["gpu_spot"]["priority"], groups["gpu_on_demand"]["priority"] = 0, 10
    validate_config(config)
    assert launched(config, [{"GPU": 1.0}]) == {"gpu_on_demand": 1}


@pytest.mark.parametrize(
    ("status", "group"),
    [(_MESSAGES.Instance.ALLOCATION_FAILED, "gpu_spot"), (_MESSAGES.Instance.ALLOCATION_TIMEOUT, "gpu_on_demand")],
)
def test_a_refused_launch_is_retried_in_the_same_group(status: int, group: str) -> None:
    """The file's comment says so of Ray 2.60. Where this fails, Ray has learnt to fall back: say that instead."""
    monitor = CloudResourceMonitor()
    monitor.notify(
        [_MESSAGES.InstanceUpdateEvent(instance_id="1", new_instance_status=status, instance_type="gpu_spot")]
    )
    available = monitor.get_recoverable_resource_availabilities()
    assert launched(prepared(), [{"GPU": 1.0}], available) == {group: 1}


# What EC2 is asked for.


def test_a_spot_machine_is_requested_in_several_zones_in_order(cloud: Cloud) -> None:
    zones = written()["provider"]["availability_zone"].split(",")
    assert len(zones) >= 2
    where = {net["SubnetId"]: net["AvailabilityZone"] for net in cloud.ec2.describe_subnets()["Subnets"]}
    for name in ("gpu_spot", "gpu_on_demand"):
        nets = cloud.config["available_node_types"][name]["node_config"]["SubnetIds"]
        assert [where[net] for net in nets] == zones


@pytest.mark.parametrize("name", ["cpu", "gpu_spot", "gpu_on_demand"])
def test_what_ec2_is_asked_for(cloud: Cloud, name: str) -> None:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    node = copy.deepcopy(cloud.config["available_node_types"][name]["node_config"])
    assert node["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/")
    # This EC2 does not know the names that AWS gives to images.
    node["ImageId"] = cloud.ec2.describe_images()["Images"][0]["ImageId"]
    provider = AWSNodeProvider(cloud.config["provider"], cloud.config["cluster_name"])
    (instance_id,) = provider.create_node(node, {"ray-node-kind": "worker", "ray-launch-config": name}, 1)
    (instance,) = cloud.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"]
    assert instance.get("InstanceLifecycle") == ("spot" if name == "gpu_spot" else None)
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert instance["IamInstanceProfile"]["Arn"].endswith("/caslie-ray-worker")
    assert [group["GroupId"] for group in instance["SecurityGroups"]] == [cloud.group]
    (disk,) = cloud.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance_id]}])[
        "Volumes"
    ]
    assert disk["Size"] >= (300 if name.startswith("gpu") else 100)
    assert disk["VolumeType"] == "gp3"
    assert disk["Encrypted"] is True


def open_to_the_world(cloud: Cloud, config: dict[str, Any]) -> set[str]:
    """The security groups of a cluster's machines that let anybody in."""
    used = {
        group for node in config["available_node_types"].values() for group in node["node_config"]["SecurityGroupIds"]
    }
    found = cloud.ec2.describe_security_groups(GroupIds=sorted(used))["SecurityGroups"]
    ranges = {
        group["GroupId"]: {
            one.get("CidrIp") or one.get("CidrIpv6")
            for rule in group["IpPermissions"]
            for one in (*rule.get("IpRanges", ()), *rule.get("Ipv6Ranges", ()))
        }
        for group in found
    }
    return {group for group, sources in ranges.items() if sources & _WORLD}


def test_no_port_is_open_to_the_world(cloud: Cloud) -> None:
    for name, node in node_types().items():
        assert node["node_config"]["SecurityGroupIds"], name
    assert "security_group" not in written()["provider"]
    assert open_to_the_world(cloud, cloud.config) == set()
    # Without a group of one's own Ray makes one that is: what the file says, and what this would see.
    config = prepared()
    for node in config["available_node_types"].values():
        del node["node_config"]["SecurityGroupIds"]
    assert len(open_to_the_world(cloud, bootstrapped(config))) == 1


# What a node runs.


def test_images_and_the_project_have_the_same_ray() -> None:
    pinned = next(one for one in _PROJECT["dependencies"] if one.startswith("ray["))
    version = pinned.partition("==")[2]
    assert version == ray.__version__
    config = AutoscalingConfig(prepared(), skip_content_hash=True)
    images = {name: config.get_docker_config(name)["image"] for name in node_types()}
    assert images == {
        "head": f"rayproject/ray:{version}-py311-cpu",
        "cpu": f"rayproject/ray:{version}-py311-cpu",
        "gpu_spot": f"rayproject/ray:{version}-py311-gpu",
        "gpu_on_demand": f"rayproject/ray:{version}-py311-gpu",
    }
    assert _PROJECT["requires-python"] == ">=3.11"


def test_every_node_installs_the_project() -> None:
    config = AutoscalingConfig(prepared(), skip_content_hash=True)
    assert any("pip install '.[vllm]'" in command for command in config.get_head_setup_commands())
    assert any(command.endswith("pip install .") for command in config.get_worker_setup_commands("cpu"))
    for name in ("gpu_spot", "gpu_on_demand"):
        assert any(command.endswith("pip install '.[vllm]'") for command in config.get_worker_setup_commands(name))
    where = {command.split()[1] for name in ("cpu", "gpu_spot") for command in config.get_worker_setup_commands(name)}
    assert where <= set(written()["file_mounts"])


def test_the_token_is_asked_for_and_is_not_in_the_file() -> None:
    config = prepared()
    image, options, mounts = config["docker"]["image"], config["docker"]["run_options"], config["file_mounts"]
    started = docker_start_cmds("ubuntu", image, mounts, "caslie", options, "caslie", "/home/ray", "docker")
    assert "--env RAY_AUTH_MODE=token " in started
    (path,) = re.findall(r"--env RAY_AUTH_TOKEN_PATH=(\S+)", started)
    assert f":{path} " in started
    assert mounts[path] == "~/.ray/auth_token"
    assert not re.search(r"RAY_AUTH_TOKEN=|AWS_SECRET|aws_secret|AKIA|hf_[A-Za-z0-9]{8}", _TEXT)


def test_the_dashboard_is_reachable_only_through_the_head() -> None:
    (command,) = [one for one in prepared()["head_start_ray_commands"] if "ray start" in one]
    assert "--dashboard-host=127.0.0.1" in command
    assert "--num-gpus=0" in command
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in command


def test_workers_watch_for_preemption_once_ray_runs(capsys: pytest.CaptureFixture[str]) -> None:
    commands = AutoscalingConfig(prepared(), skip_content_hash=True).get_worker_start_ray_commands()
    (started,) = [at for at, command in enumerate(commands) if "ray start" in command]
    (watched,) = [at for at, command in enumerate(commands) if "caslie_ray.cluster.preemption" in command]
    assert started < watched
    assert commands[watched].rstrip().endswith("&")
    assert importlib.util.find_spec("caslie_ray.cluster.preemption")
    words = commands[watched].partition("caslie_ray.cluster.preemption")[2].partition(">")[0].split()
    with pytest.raises(SystemExit) as caught:
        watch_for_preemption([*words, "--help"])
    assert caught.value.code == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_command_is_one_that_a_shell_and_ray_know() -> None:
    from ray.scripts.scripts import cli

    config = prepared()
    commands = [config[name] for name in config if name.endswith("_commands")]
    commands += [node.get("worker_setup_commands", []) for node in config["available_node_types"].values()]
    for command in [one for several in commands for one in several]:
        done = subprocess.run(
            ["bash", "-n", "-c", f"export A=1; ({command}\n)"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
    header = _TEXT.partition("\ncluster_name:")[0]
    named = re.findall(r"^#\s+ray ([a-z-]+)", header, flags=re.MULTILINE)
    assert {"up", "dashboard", "job", "exec", "attach", "down", "get-auth-token"} <= set(named)
    assert set(named) <= set(cli.commands)
    for path in re.findall(r"python (jobs/\w+\.py)", header):
        assert (_ROOT / path).is_file()


# What a job takes along.


def test_the_runtime_environment_is_the_projects_dependencies() -> None:
    found = yaml.safe_load((_ROOT / "jobs/runtime_env.yaml").read_text(encoding="utf-8"))
    assert found["pip"] == [one for one in _PROJECT["dependencies"] if not one.startswith("ray[")]
    environment = RuntimeEnv(**found)
    assert environment.pip_config()["packages"] == found["pip"]
    assert json.loads(environment.serialize())["config"]["setup_timeout_seconds"] == 1800


def packed(folder: Path, target: Path) -> dict[str, int]:
    """What `ray job submit --working-dir` takes of a folder: names and sizes."""
    create_package(str(folder), target, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(target) as package:
        return {one.filename: one.file_size for one in package.infolist()}


def test_a_working_directory_is_small_and_complete(tmp_path: Path) -> None:
    found = packed(_ROOT, tmp_path / "package.zip")
    assert (tmp_path / "package.zip").stat().st_size < 25 * _MIB
    files = [path for name in ("caslie_ray", "jobs") for path in (_ROOT / name).rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(_ROOT)) for path in files if "__pycache__" not in path.parts}
    assert any("checkpoints" in name and name.endswith(".safetensors") for name in wanted)
    assert wanted <= found.keys()
    assert not {name.partition("/")[0] for name in found} & {"tests", ".git", ".venv", "runs", "build", ".mypy_cache"}


def test_untracked_files_of_a_checkout_are_not_uploaded(tmp_path: Path) -> None:
    stay = (
        "tests/test_one.py", ".git/objects/ab/cd", ".venv/lib/torch.so", "venv/lib/torch.so", "runs/demo/0.parquet",
        "build/cluster/caslie_ray/cli.py", "dist/caslie_ray.whl", "caslie_ray.egg-info/PKG-INFO", ".ci/run",
        ".mypy_cache/3.11/a.json", ".pytest_cache/v/a", ".ruff_cache/0.17/a", ".hypothesis/examples/a",
        "caslie_ray/__pycache__/cli.pyc",
    )  # fmt: skip
    go = ("caslie_ray/cli.py", "caslie_ray/miniature/checkpoints/uni/model.safetensors", "jobs/caption.py", "mine.yaml")
    for name in (*stay, *go):
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    shutil.copy(_ROOT / ".rayignore", tmp_path / "checkout")
    assert packed(tmp_path / "checkout", tmp_path / "package.zip").keys() == {*go, ".rayignore"}


def test_a_job_starts_from_the_uploaded_package(tmp_path: Path) -> None:
    packed(_ROOT, tmp_path / "package.zip")
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        package.extractall(tmp_path / "there")
    done = subprocess.run(
        [sys.executable, "-v", "jobs/ingest.py", "--help"],
        cwd=tmp_path / "there",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "--source" in done.stdout
    assert str(tmp_path / "there" / "caslie_ray" / "cli.py") in done.stderr
