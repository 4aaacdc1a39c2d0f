"""What stands in the demo: nodes, networks, who serves whom. container/compose.yml says the same
for containers, and the drill compares the two."""

from dataclasses import dataclass
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent
FLEET = DEPLOY / "fleet"

# The provider is a customer too; it names itself. Those it serves get their ids from it.
PROVIDER = "018f0000-0000-7000-8000-00000000d001"
CUSTOMERS = ("Customer A", "Customer B")


@dataclass(frozen=True)
class Node:
    """One node: its roles' flag, its file, whose it is (0, 1: a customer; None: the provider),
    its parent, its networks."""

    role: str
    file: str
    customer: int | None
    parent: str
    networks: tuple[str, ...]


# The top first: the order of starting.
NODES = {
    "app-server": Node("app-server", "app-server.xml", None, "", ("core",)),
    "applications-mlm": Node("applications-mlm", "applications-mlm.xml", None, "app-server",
                             ("core", "dmz")),
    "aggregation": Node("mlm", "aggregation.xml", None, "applications-mlm",
                        ("dmz", "line-a", "line-b")),
    "mlm-a": Node("mlm", "mlm.xml", 0, "aggregation", ("customer-a", "line-a")),
    "proxy-a1": Node("proxy", "proxy.xml", 0, "mlm-a", ("customer-a",)),
    "proxy-a2": Node("proxy", "proxy.xml", 0, "mlm-a", ("customer-a",)),
    "proxy-b": Node("proxy", "proxy.xml", 1, "aggregation", ("customer-b", "line-b")),
    "portal": Node("content-mlm", "portal.xml", None, "app-server", ("core",)),
}
# Where the senders are.
DEVICES = {"devices-a": ("customer-a",), "devices-b": ("customer-b",)}
# The proxies, and who sends to each.
PROXIES = {"proxy-a1": "devices-a", "proxy-a2": "devices-a", "proxy-b": "devices-b"}
TOP = "app-server"
# The node with the small disk, and its size.
SMALL_DISK, DISK_BYTES = "proxy-b", 256 << 20


def environment(node, customers):
    """The variables that the node's file asks for; `customers` are the ids of CUSTOMERS."""
    whose = NODES[node].customer
    return {
        "CALLHOME_CUSTOMER": PROVIDER if whose is None else customers[whose],
        "CALLHOME_PARENT": NODES[node].parent or "nobody",
    }
