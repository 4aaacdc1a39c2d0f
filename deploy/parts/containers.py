"""The stage of containers: the demo as deploy/demo started it, broken by the Docker engine."""

import io
import json
import os
import subprocess
import tarfile

from . import fleet
from .shell import Failure, has, run

COMPOSE_FILE = fleet.DEPLOY / "container" / "compose.yml"


def project():
    """Name of the demo: of its compose project and its images."""
    return os.environ.get("CALLHOME_DEMO", "callhome-demo")


def engine():
    """Why there is no Docker engine here; empty where there is one."""
    if not has("docker"):
        return "docker is not installed"
    done = run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, timeout=20)
    return "" if done.returncode == 0 else f"the Docker engine does not answer: " \
        f"{(done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]}"


def compose_command():
    """`docker compose` where it exists, else `docker-compose`."""
    if run(["docker", "compose", "version"], check=False, timeout=20).returncode == 0:
        return ["docker", "compose"]
    if has("docker-compose"):
        return ["docker-compose"]
    raise Failure("neither docker compose nor docker-compose is here",
                  "apt-get install docker-compose", 69)


def find(service="", running=True):
    """Containers of the demo: ids by service."""
    words = ["docker", "ps", "--format", '{{.ID}} {{.Label "com.docker.compose.service"}}',
             "--filter", f"label=com.docker.compose.project={project()}"]
    words += [] if running else ["--all"]
    words += ["--filter", f"label=com.docker.compose.service={service}"] if service else []
    lines = (line.split() for line in run(words).stdout.splitlines())
    return {name: identity for identity, name in lines}


def token():
    """The operator's token, out of the portal's data folder; empty while there is none."""
    portal = find("portal").get("portal")
    copied = subprocess.run(["docker", "cp", f"{portal}:/data/operator.token", "-"],
                            capture_output=True, timeout=60)
    if copied.returncode != 0:
        return ""
    with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as tar:
        return tar.extractfile(tar.getmembers()[0]).read().decode().strip()


class Containers:
    """The running demo."""

    what = "containers"

    def __init__(self):
        self.name = project()
        self.ids = find(running=False)
        missing = [n for n in (*fleet.NODES, *fleet.DEVICES, "disk") if n not in self.ids]
        if missing:
            raise Failure(f"the demo does not run: no {', '.join(missing)}", "deploy/demo up", 69)
        self._compare()

    def _compare(self):
        """The networks of compose.yml are those of fleet.py."""
        for node in (*fleet.NODES, *fleet.DEVICES):
            wanted = set(fleet.NODES[node].networks if node in fleet.NODES else fleet.DEVICES[node])
            are = set(self.networks(node)) - {"desk"}
            if are != wanted:
                raise Failure(f"{node} is on {sorted(are)}, not {sorted(wanted)}",
                              "an earlier drill was cut off: deploy/demo down, then up")

    def close(self):
        """The demo goes on."""

    def inspect(self, node):
        """What the engine knows of a container."""
        return json.loads(run(["docker", "inspect", self.ids[node]]).stdout)[0]

    def networks(self, node):
        """Networks by their short names, with the address there."""
        known = self.inspect(node)["NetworkSettings"]["Networks"]
        return {name.removeprefix(f"{self.name}_"): of["IPAddress"] for name, of in known.items()}

    def callhome(self, node, *words, timeout=60):
        """Runs a command of the program inside the node."""
        argv = ["docker", "exec", self.ids[node], "/callhome", *words]
        return run(argv, timeout=timeout, check=False)

    # Senders.

    def sender(self, proxy, kind, word):
        """Starts one sender of a load; it says on stdout what was accepted."""
        where = f"/run/{proxy}/integrator.sock" if kind == "call" else proxy
        argv = ["docker", "exec", self.ids[fleet.PROXIES[proxy]], "/bin/sh", "/senders/load", kind,
                word, proxy, where]
        return subprocess.Popen(argv, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def stop_senders(self, word):
        """Tells them all to end."""
        for devices in fleet.DEVICES:
            run(["docker", "exec", self.ids[devices], "/usr/bin/touch", f"/tmp/stop-{word}"])

    # Faults.

    def kill(self, *nodes):
        """KILL, as a power cut ends it; it stays away."""
        run(["docker", "kill", *(self.ids[node] for node in nodes)])

    def stop(self, *nodes):
        """TERM, and time to end."""
        run(["docker", "stop", "--time", "30", *(self.ids[node] for node in nodes)])

    def start(self, *nodes):
        """Starts what was ended."""
        run(["docker", "start", *(self.ids[node] for node in nodes)])

    def pause(self, node):
        """Freezes all of its processes."""
        run(["docker", "pause", self.ids[node]])

    def resume(self, node):
        """Thaws them."""
        run(["docker", "unpause", self.ids[node]])

    def cut(self, node, network):
        """Takes the node off a network."""
        run(["docker", "network", "disconnect", f"{self.name}_{network}", self.ids[node]])

    def mend(self, node, network):
        """Puts it back, under its name."""
        run(["docker", "network", "connect", "--alias", node, f"{self.name}_{network}",
             self.ids[node]])

    def fill_disk(self):
        """Fills the small disk to the last byte."""
        command = f"head -c {fleet.DISK_BYTES} /dev/zero >/disk/ballast; [ -s /disk/ballast ]"
        run(["docker", "exec", self.ids["disk"], "/bin/sh", "-c", command])

    def make_room(self):
        """Takes away what filled it."""
        run(["docker", "exec", self.ids["disk"], "/usr/bin/rm", "-f", "/disk/ballast"])

    def _tc(self, node, network, *words):
        """Traffic control at the node's end of a network, from a helper in its network."""
        address = self.networks(node)[network]
        helper = ["docker", "run", "--rm", "--network", f"container:{self.ids[node]}",
                  "--user", "0", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN",
                  f"callhome-senders:{self.name}"]
        for line in run([*helper, "/usr/bin/ip", "-o", "-4", "address"]).stdout.splitlines():
            if f" {address}/" in line:
                device = line.split()[1]
                return run([*helper, "/usr/bin/tc", *words[:2], "dev", device, *words[2:]])
        raise Failure(f"{node} has no interface with {address}")

    def slow(self, node, network, bits_per_s):
        """Makes what the node sends there a thin line."""
        self._tc(node, network, "qdisc", "replace", "root", "tbf", "rate", f"{bits_per_s}bit",
                 "burst", "2kb", "latency", "3s")

    def full_speed(self, node, network):
        """Takes the thin line away."""
        self._tc(node, network, "qdisc", "del", "root")
