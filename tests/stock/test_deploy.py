"""The files in deploy/: that they parse, agree with each other, and say nothing that the service does not know."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import urllib.request

import kubernetes_validate
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


def dockerfile():
    """The last stage of the Dockerfile: its instructions, in order, as (instruction, rest)."""
    text = (DEPLOY / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    instructions = [tuple(line.split(None, 1)) for line in lines if line.strip()]
    last = max(n for n, (instruction, _) in enumerate(instructions) if instruction == "FROM")
    return instructions[last:]


def instruction(name):
    return only(rest for found, rest in dockerfile() if found == name)


def image_variables():
    return dict(variable.split("=", 1) for variable in shlex.split(instruction("ENV")))


def image_command(server, *arguments):
    """What `docker run IMAGE ARGUMENT...` runs, with the real binary."""
    entrypoint = json.loads(instruction("ENTRYPOINT"))
    assert entrypoint == ["emitter"]
    return [server.binary, *(arguments or json.loads(instruction("CMD")))]


def test_the_image_serves_on_all_interfaces(server, secret):
    assert image_command(server)[1:] == ["serve"]
    variables = image_variables()
    auth = {"EMITTER_AUTH__ISSUER": "platform", "EMITTER_AUTH__SECRET_FILE": secret}
    shown = accepted(server, **{**variables, **auth})
    ports = instruction("EXPOSE").split()
    for name, port in zip(["grpc", "http", "admin"], ports, strict=True):
        assert f'{name}_listen = "0.0.0.0:{port}" # EMITTER_{name.upper()}_LISTEN' in shown, shown


def test_the_image_runs_dev(server, shell, tmp_path):
    """With the image's variables, but free ports and a home that is there."""
    variables = {name: re.sub(r":\d+$", ":0", value) for name, value in image_variables().items()}
    assert variables.pop("HOME") == "/home/emitter"
    made = only(rest for found, rest in dockerfile() if found == "RUN" and "useradd" in rest)
    user = instruction("USER")
    assert "--create-home emitter" in made and f"--uid {user.split(':')[0]}" in made, made

    dev = shell.start("emitter", *image_command(server, "dev")[1:], **variables)
    page = dev.until("the page", lambda: next((text for text in dev.out if "/#token=" in text), None))
    told = "\n".join(dev.out)
    assert re.search(r"browsers +0\.0\.0\.0:\d+", told), told
    # From the host, through a port that may be published under another number, or from another machine.
    port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/#token=\S+", page)[1])
    for host in [f"127.0.0.1:{port}", "localhost:18080", "192.168.1.5:8080"]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": host})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            assert answer.status == 200, host
    # All of 127.0.0.0/8 is this machine: a listener on 127.0.0.1 alone does not answer at another of its addresses.
    socket.create_connection(("127.0.0.2", port), timeout=SECONDS).close()
    # `docker exec CONTAINER emitter ...` finds the session.
    assert shell.run("emitter", "token", "--sub", "demo", "--scope", "subscribe").out[0].count(".") == 2
    dev.terminate()
    assert dev.ended() == 0, dev


def test_compose_starts_three_nodes_on_one_redis(server, secret):
    services = compose()["services"]
    assert len(nodes(services)) == 3 and {"balancer", "redis"} <= services.keys()
    for node in nodes(services).values():
        variables = {**image_variables(), **node["environment"]}
        shown = accepted(server, **{**variables, "EMITTER_AUTH__SECRET_FILE": secret})
        assert 'kind = "redis"' in shown and '"redis://redis:6379"' in shown, shown
        assert seconds(node["stop_grace_period"]) >= seconds(variables["EMITTER_DRAIN"]) + 5
    # What is not published cannot be reached: the admin port least of all.
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["50051:50051", "8080:8080"]
    assert "noeviction" in services["redis"]["command"]


def test_compose_makes_a_secret_once(server, tmp_path):
    """One command starts everything: nothing has to be made by hand before."""
    services = compose()["services"]
    maker = services["secret"]
    volume, place = only(maker["volumes"]).split(":")
    for node in nodes(services).values():
        assert node["depends_on"]["secret"] == {"condition": "service_completed_successfully"}
        assert node["volumes"] == [f"{volume}:{place}:ro"]
        assert node["environment"]["EMITTER_AUTH__SECRET_FILE"] == f"{place}/secret"
    # The image has the directory, so that a new volume belongs to the image's user.
    made = only(rest for found, rest in dockerfile() if found == "RUN" and "useradd" in rest)
    assert re.search(rf"install -d -o 65532 -g 65532 -m 700 {place}$", made), made

    script = only(maker["command"])
    assert maker["entrypoint"] == ["sh", "-c"] and script.count(place) == 1
    first = None
    for _ in range(2):
        subprocess.run(["sh", "-c", script.replace(place, str(tmp_path))], check=True, timeout=SECONDS)
        made = tmp_path / "secret"
        assert [path.name for path in tmp_path.iterdir()] == ["secret"] and made.stat().st_mode & 0o777 == 0o600
        secret = made.read_text()
        assert re.fullmatch(r"[0-9a-f]{64}", secret) and secret == (first or secret)
        first = secret
    variables = nodes(services)["emitter-1"]["environment"]
    accepted(server, **{**variables, "EMITTER_AUTH__SECRET_FILE": made})


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
    assert container["args"] == ["serve"] and container["image"].startswith("registry.example.com/emitter:")
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


MANIFESTS = ["kubernetes.yaml", "ingress.yaml"]


# The newest version that the schemas are of, and one that is older.
@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifests_follow_the_schemas_of_kubernetes(name, version):
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_manifest_is_noticed():
    """What the test before rests upon."""
    deployment = kubernetes("Deployment")
    deployment["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="enableServiceLink"):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


def service_links(service):
    """The variables that Kubernetes puts into containers for a Service."""
    prefix = service["metadata"]["name"].upper().replace("-", "_")
    address = "10.96.0.17"
    first = service["spec"]["ports"][0]["port"]
    links = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": first}
    links[f"{prefix}_PORT"] = f"tcp://{address}:{first}"
    for port in service["spec"]["ports"]:
        number = port["port"]
        links[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = number
        link = f"{prefix}_PORT_{number}_TCP"
        links[link] = f"tcp://{address}:{number}"
        links |= {f"{link}_PROTO": "tcp", f"{link}_PORT": number, f"{link}_ADDR": address}
    return links


def test_the_variables_that_kubernetes_makes_for_services_are_no_settings(server, secret):
    """The pods ask for none. A manifest of somebody else's may not."""
    manifests = documents("kubernetes.yaml")
    pods = [d["spec"]["template"]["spec"] for d in manifests if "template" in d.get("spec", {})]
    assert len(pods) == 2 and all(pod["enableServiceLinks"] is False for pod in pods)

    services = [document for document in manifests if document["kind"] == "Service"]
    assert {"emitter-grpc", "emitter-http", "emitter-redis"} == {service["metadata"]["name"] for service in services}
    # One that has the name of the program, as a chart would call it.
    ports = [port for service in services for port in service["spec"]["ports"]]
    services.append({"metadata": {"name": "emitter"}, "spec": {"ports": ports}})
    variables = {**image_variables(), **kubernetes("ConfigMap")["data"], "EMITTER_AUTH__SECRET_FILE": secret}
    for service in services:
        variables |= service_links(service)
    assert {"EMITTER_HTTP_SERVICE_HOST", "EMITTER_PORT_8080_TCP_ADDR"} <= variables.keys()
    shown = accepted(server, **variables)
    assert "10.96.0.17" not in shown, shown


def test_the_ingress_leads_to_the_services_over_tls():
    ingresses = documents("ingress.yaml")
    assert [ingress["metadata"]["name"] for ingress in ingresses] == ["emitter-http", "emitter-grpc"]
    for ingress in ingresses:
        rule = only(ingress["spec"]["rules"])
        assert only(ingress["spec"]["tls"]) == {"hosts": [rule["host"]], "secretName": "emitter-tls"}
        backend = only(rule["http"]["paths"])["backend"]["service"]
        service = kubernetes("Service", backend["name"])["spec"]
        assert backend["port"]["name"] == only(service["ports"])["name"]


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
    # No name server here knows the nodes' names, and not every one says so.
    environment = {**os.environ, "RES_OPTIONS": "timeout:1 attempts:1"}
    checked = subprocess.run(
        ["haproxy", "-c", "-f", DEPLOY / "haproxy.cfg"], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert (checked.returncode, checked.stderr) == (0, ""), checked
    variables = image_variables()
    for backend, listen in [("grpc", "EMITTER_GRPC_LISTEN"), ("http", "EMITTER_HTTP_LISTEN")]:
        section = re.search(rf"^backend {backend}\n(.*?)(?=^\S|\Z)", config, re.MULTILINE | re.DOTALL)[1]
        port = variables[listen].rsplit(":", 1)[1]
        servers = re.findall(r"^ +server (\S+) (\S+)", section, re.MULTILINE)
        assert servers == [(name, f"{name}:{port}") for name in nodes(compose()["services"])]
    admin = variables["EMITTER_ADMIN_LISTEN"].rsplit(":", 1)[1]
    assert f"check port {admin} " in config and config.count("option httpchk GET /readyz") == 2


# Prints the status and headers of one gRPC call, and whether more than headers came.
CALL = """
import http2 from "node:http2";
const session = http2.connect(process.argv[1]);
const call = session.request({ ":method": "POST", ":path": "/emitter.v1.EventEmitter/Emit", "content-type": "application/grpc" });
const END_STREAM = 1;
call.on("response", (headers, flags) => console.log(JSON.stringify({ ...headers, only: (flags & END_STREAM) > 0 })));
call.on("close", () => session.close());
call.end(Buffer.from([0, 0, 0, 0, 0]));
"""


def test_the_balancer_without_a_node_answers_as_a_grpc_server(tmp_path, shell):
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
        grpc, http = free.getsockname()[1], other.getsockname()[1]
    config = (DEPLOY / "haproxy.cfg").read_text()
    config = config.replace("bind :50051", f"bind 127.0.0.1:{grpc}").replace("bind :8080", f"bind 127.0.0.1:{http}")
    # Port 1 of this machine: no node.
    config = re.sub(r"(server \S+) \S+:\d+", r"\1 127.0.0.1:1 port 1", config).replace("maxconn 200000", "maxconn 100")
    (tmp_path / "haproxy.cfg").write_text(config)
    balancer = shell.start(shutil.which("haproxy"), "-db", "-f", "haproxy.cfg")
    balancer.until("that no node is ready", lambda: any("'grpc' has no server" in line for line in balancer.err))
    called = subprocess.run(
        ["node", "--input-type=module", "--eval", CALL, f"http://127.0.0.1:{grpc}"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert called.returncode == 0, (called, balancer)
    answer = json.loads(called.stdout)
    told = {name: answer.get(name) for name in [":status", "content-type", "grpc-status", "grpc-message", "only"]}
    assert told == {
        ":status": 200,
        "content-type": "application/grpc",
        "grpc-status": "14",
        "grpc-message": "no node is ready",
        "only": True,
    }


def test_what_readme_says_of_times_is_so():
    readme = (DEPLOY / "README.md").read_text()
    assert "are 40 s here" in readme
    grace = kubernetes("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    stops = {seconds(node["stop_grace_period"]) for node in nodes(compose()["services"]).values()}
    assert stops == {grace} == {40}
