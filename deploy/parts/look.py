"""What can be seen of a fleet, asked by the callhome program inside each node: health, accounts,
events. The same on every stage."""

import json

from . import fleet
from .shell import Failure


def answer(stage, node, *words, timeout=60):
    """The JSON of a command inside a node; None where it does not answer."""
    done = stage.callhome(node, *words, "--format", "json", timeout=timeout)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        return None


def health(stage, node):
    """Reasons why the node is not well; empty: alive, ready, delivering."""
    rows = answer(stage, node, "doctor", timeout=30)
    if not rows:
        return ["does not answer"]
    said = {row["check"]: row for row in rows}
    wrong = []
    for check in ("alive", "ready", "delivering"):
        row = said.get(check, {"status": "fail", "found": "not told"})
        if row["status"] != "pass":
            wrong.append(f"{check}: {row['found']}")
    return wrong


def sick(stage, nodes=tuple(fleet.NODES)):
    """Nodes that are not well, with why."""
    found = {node: health(stage, node) for node in nodes}
    return {node: "; ".join(wrong) for node, wrong in found.items() if wrong}


def ledgers(stage):
    """The account of each node by name; those that did not answer in time are left out, since
    theirs is an old one."""
    done = stage.callhome(fleet.TOP, "ledger", "--format", "json", timeout=60)
    try:
        rows = json.loads(done.stdout)
    except json.JSONDecodeError:
        return {}
    silent = done.stderr
    return {row["node"]: row for row in rows if row["node"] not in silent}


def waiting(stage, node):
    """Messages that wait in a node for its parent."""
    rows = answer(stage, node, "queue", "ls") or []
    return sum(row["messages"] for row in rows if row["queue"] == "up")


def texts(stage, word):
    """How often each text with that word is stored at the application server."""
    events = answer(stage, fleet.TOP, "ls", "events", "--text", word, "--limit", "0", timeout=120)
    if events is None:
        raise Failure("the application server does not list its events")
    found = {}
    for event in events:
        found[event["text"]] = found.get(event["text"], 0) + 1
    return found
