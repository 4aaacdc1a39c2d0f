"""The stage of network namespaces: the same fleet as processes on one machine, for where there is
no Docker engine. Needs root, `ip` and `unshare`."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from . import api, fleet, look
from .shell import Failure, has, run, say, wait_for

# The networks, in the order of their numbers.
NETWORKS = ("customer-a", "customer-b", "line-a", "line-b", "dmz", "core")
# In a namespace of mounts and one of host names of its own: /etc/hosts says who is where.
ENTER = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'
REGISTERED_WITHIN_S = 120


def missing():
    """Why this machine cannot have it; empty where it can."""
    for program in ("ip", "unshare", "hostname", "mount", "tc", "snmpinform", "logger"):
        if not has(program):
            return f"{program} is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"ch{os.getpid()}-try"
    done = run(["ip", "netns", "add", name], check=False)
    if done.returncode != 0:
        return f"no network namespace can be made: {done.stderr.strip()}"
    run(["ip", "netns", "del", name], check=False)
    return ""


class Namespaces:
    """A fleet of processes, each node in a network namespace of its own."""

    what = "network namespaces"

    def __init__(self, binary):
        self.binary = str(Path(binary).resolve())
        self.folder = Path(tempfile.mkdtemp(prefix="chd"))
        self.mark = f"ch{os.getpid()}"
        self.spaces, self.processes, self.wanted = [], {}, set()
        self.customers = []
        self.disk_mounted = False
        self.stops = []
        try:
            self._networks()
            self._nodes()
        except BaseException:
            self.close()
            raise

    # Networks: a bridge each in a namespace that is the switch, a cable to each node.

    def _space(self, name):
        return f"{self.mark}-{name}"

    def _ip(self, space, *words):
        run(["ip", "-n", self._space(space), *words])

    def _networks(self):
        everybody = {**{name: node.networks for name, node in fleet.NODES.items()}, **fleet.DEVICES}
        for name in ("switch", *everybody):
            run(["ip", "netns", "add", self._space(name)])
            self.spaces.append(name)
            self._ip(name, "link", "set", "lo", "up")
        addresses = {}
        for number, network in enumerate(NETWORKS):
            self._ip("switch", "link", "add", network, "type", "bridge")
            self._ip("switch", "link", "set", network, "up")
            members = [name for name in everybody if network in everybody[name]]
            for host, name in enumerate(members, 1):
                port = self._port(name, network)
                self._ip("switch", "link", "add", port, "type", "veth", "peer", "name", network,
                         "netns", self._space(name))
                self._ip("switch", "link", "set", port, "master", network, "up")
                address = f"10.77.{number}.{host}"
                self._ip(name, "address", "add", f"{address}/24", "dev", network)
                self._ip(name, "link", "set", network, "up")
                addresses[name, network] = address
        for name, own in everybody.items():
            # A node knows the names on its own networks alone, as under Docker.
            lines = ["127.0.0.1 localhost"]
            lines += [f"{address} {other}" for (other, network), address in addresses.items()
                      if network in own and other != name]
            (self.folder / f"{name}.hosts").write_text("\n".join(lines) + "\n")

    def _port(self, name, network):
        everybody = [*fleet.NODES, *fleet.DEVICES]
        return f"p{NETWORKS.index(network)}-{everybody.index(name)}"

    def _inside(self, name, argv):
        """The words that run a command on the network, and under the name, of a node."""
        return ["ip", "netns", "exec", self._space(name), "unshare", "--uts", "sh", "-c", ENTER,
                "sh", name, str(self.folder / f"{name}.hosts"), *map(str, argv)]

    # Nodes.

    def _nodes(self):
        bin_folder = self.folder / "bin"
        bin_folder.mkdir()
        (bin_folder / "callhome").symlink_to(self.binary)
        for node in fleet.NODES:
            (self.folder / node / "run").mkdir(parents=True)
            (self.folder / node / "data").mkdir(mode=0o750)
        small = self.folder / fleet.SMALL_DISK / "data"
        mounted = run(["mount", "-t", "tmpfs", "-o", f"size={fleet.DISK_BYTES},mode=0750", "tmpfs",
                       small], check=False)
        self.disk_mounted = mounted.returncode == 0
        keys = [self.folder / node / "data" for node in (fleet.TOP, "portal")]
        run([fleet.FLEET / "senders" / "keys", *keys])
        self.start(fleet.TOP, "portal")
        _, self.customers = wait_for("the application server", REGISTERED_WITHIN_S, self._customers)
        self.start(*(node for node in fleet.NODES if node not in (fleet.TOP, "portal")))
        wait_for("all nodes to be well", REGISTERED_WITHIN_S, lambda: not look.sick(self))

    def _customers(self):
        token = (self.folder / fleet.TOP / "data" / "operator.token").read_text().strip()
        argv = [sys.executable, api.__file__, "http://127.0.0.1:7080", token, *fleet.CUSTOMERS]
        done = run(self._inside("portal", argv), check=False)
        return done.stdout.split() if done.returncode == 0 else None

    def _run(self, node):
        known = fleet.NODES[node]
        home = self.folder / node
        customers = self.customers or [fleet.PROVIDER, fleet.PROVIDER]
        variables = {**os.environ, **fleet.environment(node, customers),
                     "CALLHOME_RUN": str(home / "run"),
                     "CALLHOME_RULES": str(fleet.FLEET / "rules")}
        argv = [self.binary, "node", "--role", known.role, "--insecure", "--drills", "--data",
                home / "data", "--config", fleet.FLEET / known.file]
        log = open(home / "log", "ab")
        process = subprocess.Popen(self._inside(node, argv), env=variables, stdout=log, stderr=log,
                                   stdin=subprocess.DEVNULL)
        log.close()
        self.processes[node] = process
        threading.Thread(target=self._keep, args=(node, process), daemon=True).start()

    def _keep(self, node, process):
        """A node that ends by itself is started again, as the engine does with a container."""
        process.wait()
        time.sleep(1)
        if node in self.wanted and self.processes.get(node) is process:
            self._run(node)

    def close(self):
        """Ends and removes everything."""
        self.wanted.clear()
        for name in self.spaces:
            for pid in self._pids(name):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        for process in self.processes.values():
            process.wait()
        for name in self.spaces:
            run(["ip", "netns", "del", self._space(name)], check=False)
        if self.disk_mounted:
            run(["umount", "-l", self.folder / fleet.SMALL_DISK / "data"], check=False)
        for stop in self.stops:
            stop.unlink(missing_ok=True)
        if os.environ.get("CALLHOME_DRILL_KEEP"):
            say(f"kept {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def callhome(self, node, *words, timeout=60):
        """Runs a command of the program on the node's network."""
        argv = self._inside(node, [self.binary, "--data", self.folder / node / "data", *words])
        return run(argv, timeout=timeout, check=False)

    # Senders.

    def sender(self, proxy, kind, word):
        """Starts one sender of a load; it says on stdout what was accepted."""
        where = self.folder / proxy / "run" / "integrator.sock" if kind == "call" else proxy
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        argv = ["/bin/sh", fleet.FLEET / "senders" / "load", kind, word, proxy, where]
        return subprocess.Popen(self._inside(fleet.PROXIES[proxy], argv), text=True,
                                env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE)

    def stop_senders(self, word):
        """Tells them all to end."""
        stop = Path("/tmp") / f"stop-{word}"
        stop.touch()
        self.stops.append(stop)

    # Faults.

    def _pids(self, name):
        done = run(["ip", "netns", "pids", self._space(name)], check=False)
        return [int(pid) for pid in done.stdout.split()]

    def _signal(self, node, number):
        for pid in self._pids(node):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self, *nodes):
        """KILL, all of its processes; it stays away."""
        for node in nodes:
            self.wanted.discard(node)
            self._signal(node, signal.SIGKILL)
            self.processes[node].wait()

    def stop(self, *nodes):
        """TERM, and time to end."""
        for node in nodes:
            self.wanted.discard(node)
            self.processes[node].terminate()
        for node in nodes:
            try:
                self.processes[node].wait(30)
            except subprocess.TimeoutExpired:
                self.kill(node)

    def start(self, *nodes):
        """Starts what was ended."""
        for node in nodes:
            self.wanted.add(node)
            self._run(node)

    def pause(self, node):
        """Freezes all of its processes."""
        self._signal(node, signal.SIGSTOP)

    def resume(self, node):
        """Thaws them."""
        self._signal(node, signal.SIGCONT)

    def cut(self, node, network):
        """Pulls the cable."""
        self._ip("switch", "link", "set", self._port(node, network), "down")

    def mend(self, node, network):
        """Puts it back."""
        self._ip("switch", "link", "set", self._port(node, network), "up")

    def fill_disk(self):
        """Fills the small disk to the last byte."""
        if not self.disk_mounted:
            raise Failure("no small disk here: mount is refused")
        ballast = self.folder / fleet.SMALL_DISK / "data" / "ballast"
        try:
            with open(ballast, "wb", buffering=0) as file:
                while file.write(bytes(1 << 20)):
                    pass
        except OSError:
            pass

    def make_room(self):
        """Takes away what filled it."""
        (self.folder / fleet.SMALL_DISK / "data" / "ballast").unlink(missing_ok=True)

    def slow(self, node, network, bits_per_s):
        """Makes what the node sends there a thin line."""
        run(["tc", "-n", self._space(node), "qdisc", "replace", "dev", network, "root", "tbf",
             "rate", f"{bits_per_s}bit", "burst", "2kb", "latency", "3s"])

    def full_speed(self, node, network):
        """Takes the thin line away."""
        run(["tc", "-n", self._space(node), "qdisc", "del", "dev", network, "root"])
