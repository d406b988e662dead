"""The files in deploy/: that they parse, agree with each other, and say nothing that the service does not know."""

import os
import re
import subprocess
import urllib.request

import pytest
import yaml

from server import ROOT
from shell import SECONDS

DEPLOY = ROOT / "deploy"


def documents(name):
    return [document for document in yaml.safe_load_all((DEPLOY / name).read_text()) if document]


def only(things):
    (thing,) = things
    return thing


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef" * 4 + "\n")
    return path


def check_config(server, *arguments, **variables):
    """What `emitter check-config` says to these settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EMITTER_")}
    return subprocess.run(
        [server.binary, "check-config", *map(str, arguments)],
        env={**environment, **{name: str(value) for name, value in variables.items()}},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def accepted(server, *arguments, **variables):
    checked = check_config(server, *arguments, **variables)
    assert checked.returncode == 0, checked
    return checked.stdout


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def compose():
    return only(documents("compose.yaml"))


def nodes(services):
    return {name: service for name, service in services.items() if re.fullmatch(r"emitter-\d", name)}


def kubernetes(kind, name="emitter"):
    return only(d for d in documents("kubernetes.yaml") if (d["kind"], d["metadata"]["name"]) == (kind, name))


def test_compose_starts_three_nodes_on_one_redis(server, secret):
    services = compose()["services"]
    assert len(nodes(services)) == 3 and {"balancer", "redis"} <= services.keys()
    for node in nodes(services).values():
        variables = node["environment"]
        assert variables["EMITTER_AUTH__SECRET_FILE"] == "/run/secrets/secret" and node["secrets"] == ["secret"]
        shown = accepted(server, **{**variables, "EMITTER_AUTH__SECRET_FILE": secret})
        assert 'kind = "redis"' in shown and '"redis://redis:6379"' in shown, shown
        assert seconds(node["stop_grace_period"]) >= seconds(variables["EMITTER_DRAIN"]) + 5
    # What is not published cannot be reached: the admin port least of all.
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["50051:50051", "8080:8080"]
    assert "noeviction" in services["redis"]["command"]


def test_a_variable_that_is_not_known_is_refused(server, secret):
    """What the tests here rest upon."""
    variables = nodes(compose()["services"])["emitter-1"]["environment"]
    refused = check_config(server, **{**variables, "EMITTER_AUTH__SECRET_FILE": secret, "EMITTER_REDIS__URL": "x"})
    assert refused.returncode == 64 and "EMITTER_REDIS__URL" in refused.stderr, refused


def test_kubernetes_starts_three_nodes_on_one_redis(server, secret):
    variables = kubernetes("ConfigMap")["data"]
    shown = accepted(server, **{**variables, "EMITTER_AUTH__SECRET_FILE": secret})
    assert 'kind = "redis"' in shown, shown
    spec = kubernetes("Deployment")["spec"]
    pod = spec["template"]["spec"]
    container = only(pod["containers"])
    assert spec["replicas"] == 3 and only(container["envFrom"]) == {"configMapRef": {"name": "emitter"}}

    pause = int(only(container["lifecycle"]["preStop"]["exec"]["command"][1:]))
    assert pod["terminationGracePeriodSeconds"] >= pause + seconds(variables["EMITTER_DRAIN"]) + 5

    # The ports have the names by which probes and services call them, and are those that are listened on.
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listens = {name: variables[f"EMITTER_{name.upper()}_LISTEN"] for name in ports}
    assert listens == {name: f"0.0.0.0:{port}" for name, port in ports.items()}
    for probe, path in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]:
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}
    for name in ["grpc", "http"]:
        service = kubernetes("Service", f"emitter-{name}")["spec"]
        assert only(service["ports"])["targetPort"] == name
        assert service["selector"] == spec["template"]["metadata"]["labels"] == spec["selector"]["matchLabels"]
    budget = kubernetes("PodDisruptionBudget")["spec"]
    assert budget == {"maxUnavailable": 1, "selector": spec["selector"]}

    mount = only(container["volumeMounts"])
    volume = only(volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    key = only(kubernetes("Secret")["stringData"])
    assert volume["secret"]["secretName"] == kubernetes("Secret")["metadata"]["name"]
    assert variables["EMITTER_AUTH__SECRET_FILE"] == f"{mount['mountPath']}/{key}"
    redis = kubernetes("Service", "emitter-redis")["spec"]
    assert variables["EMITTER_REDIS__URLS"] == f"redis://emitter-redis:{only(redis['ports'])['port']}"


def test_the_secret_that_is_not_there_yet_is_refused(server, tmp_path):
    empty = tmp_path / "secret"
    empty.write_text(kubernetes("Secret")["stringData"]["secret"])
    variables = {**kubernetes("ConfigMap")["data"], "EMITTER_AUTH__SECRET_FILE": empty}
    refused = check_config(server, **variables)
    assert refused.returncode == 64 and "secret" in refused.stderr, refused


def test_probes_are_answered(server):
    for path in ["/healthz", "/readyz"]:
        with urllib.request.urlopen(f"http://{server.admin}{path}", timeout=SECONDS) as answer:
            assert answer.status == 200, answer.read()


def test_the_unit_is_one(server, tmp_path):
    unit = (DEPLOY / "emitter.service").read_text()
    assert unit.count("/usr/local/bin/emitter") == 1
    path = tmp_path / "emitter.service"
    path.write_text(unit.replace("/usr/local/bin/emitter", str(server.binary)))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, timeout=SECONDS
    )
    # Of other units of this machine it may say what it likes.
    about = [line for line in (verified.stdout + verified.stderr).splitlines() if "emitter" in line]
    assert (verified.returncode, about) == (0, []), verified


def test_the_unit_starts_what_its_configuration_describes(server, secret):
    unit = (DEPLOY / "emitter.service").read_text()
    command = re.search(r"^ExecStart=\S+ serve (.*)$", unit, re.MULTILINE)[1]
    command = command.replace("/etc/emitter/emitter.toml", str(DEPLOY / "emitter.toml"))
    command = command.replace("${STATE_DIRECTORY}", "/var/lib/emitter")
    variable = re.search(r"^Environment=(EMITTER_\w+)=%d/secret$", unit, re.MULTILINE)[1]
    shown = accepted(server, *command.split(), **{variable: secret})
    assert 'kind = "durable"' in shown and 'data_dir = "/var/lib/emitter"' in shown and 'sync = "group"' in shown, shown
    drain = re.search(r'^drain = "(\d+)s"', shown, re.MULTILINE)[1]
    assert int(re.search(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE)[1]) >= int(drain) + 5


def test_the_balancer_knows_the_nodes(server):
    config = (DEPLOY / "haproxy.cfg").read_text()
    # Nobody here knows the nodes' names, and not every name server says so.
    environment = {**os.environ, "RES_OPTIONS": "timeout:1 attempts:1"}
    checked = subprocess.run(
        ["haproxy", "-c", "-f", DEPLOY / "haproxy.cfg"], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert checked.returncode == 0, checked
    variables = nodes(compose()["services"])["emitter-1"]["environment"]
    for backend, listen in [("grpc", "EMITTER_GRPC_LISTEN"), ("http", "EMITTER_HTTP_LISTEN")]:
        section = re.search(rf"^backend {backend}\n(.*?)(?=^\S|\Z)", config, re.MULTILINE | re.DOTALL)[1]
        port = variables[listen].rsplit(":", 1)[1]
        servers = re.findall(r"^ +server (\S+) (\S+)", section, re.MULTILINE)
        assert servers == [(name, f"{name}:{port}") for name in nodes(compose()["services"])]
    admin = variables["EMITTER_ADMIN_LISTEN"].rsplit(":", 1)[1]
    assert f"check port {admin} " in config and config.count("option httpchk GET /readyz") == 2


def test_what_readme_says_of_times_is_so():
    readme = (DEPLOY / "README.md").read_text()
    assert "are 40 s here" in readme
    grace = kubernetes("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    stops = {seconds(node["stop_grace_period"]) for node in nodes(compose()["services"]).values()}
    assert stops == {grace} == {40}
