"""The checker: nothing lost, nothing twice, every account balanced, everything healthy."""

from dataclasses import dataclass

from . import fleet, look
from .shell import Failure, wait_for

# Generous: the machine of a test is a busy one, and a link tries again after 15 s at most.
ARRIVES_WITHIN_S = 180
SETTLES_WITHIN_S = 120
# Nodes with an account; the portal has no queue.
ACCOUNTS = tuple(node for node in fleet.NODES if node != "portal")


@dataclass
class Finding:
    """One of the four, and what was found."""

    name: str
    ok: bool
    found: str


def check(stage, load, tell):
    """All findings; `tell` hears when everything accepted was stored."""
    def arrived():
        return set(load.accepted) <= set(look.texts(stage, load.word))

    try:
        took, _ = wait_for("what was accepted", ARRIVES_WITHIN_S, arrived, 1)
        tell(f"everything accepted was stored {took:.1f} s later")
    except Failure:
        tell(f"not everything accepted was stored {ARRIVES_WITHIN_S} s later")
    # Accounts first: when they stand still, nothing is under way that could still come twice.
    balanced = accounts(stage)
    stored = look.texts(stage, load.word)
    return [*judge(load.accepted, load.lines, stored), balanced, healthy(stage)]


def judge(accepted, lines, stored):
    """Whether all that was accepted is stored, and nothing more than once; `stored` has how often
    each text is."""
    missing = set(accepted) - set(stored)
    twice = [text for text, times in stored.items() if times > 1]
    seen = sum(text in stored for text in lines)
    return [
        # A load of nothing shows nothing.
        Finding("nothing lost", bool(accepted) and not missing,
                f"{len(accepted) - len(missing)} of {len(accepted)} accepted are stored"
                + shown(missing)),
        Finding("nothing twice", not twice,
                f"{len(stored)} texts stored, {seen} of {len(lines)} lines among them, "
                f"{len(twice)} more than once" + shown(twice)),
    ]


def shown(texts):
    """The first of some."""
    some = sorted(texts)[:5]
    return f": {', '.join(some)}" + (" …" if len(texts) > 5 else "") if some else ""


def unsettled(ledgers):
    """What is wrong with the accounts: not said, not balanced, or not still."""
    wrong = []
    for node in ACCOUNTS:
        account = ledgers.get(node)
        if account is None:
            wrong.append(f"{node} says nothing")
        elif not account["balanced"]:
            wrong.append(f"{node} does not balance")
        elif account["queued"] != 0:
            wrong.append(f"{node} holds {account['queued']}")
    return wrong


def accounts(stage):
    """Whether every node has said its account just now, it balances, and nothing waits."""
    wrong = []

    def still():
        nonlocal wrong
        wrong = unsettled(look.ledgers(stage))
        return not wrong

    try:
        wait_for("the accounts", SETTLES_WITHIN_S, still, 1)
    except Failure:
        return Finding("ledger balanced", False, "; ".join(wrong))
    count = len(ACCOUNTS)
    return Finding("ledger balanced", True,
                   f"{count} of {count} accounts balance, nothing is queued")


def healthy(stage):
    """Whether every node is alive, ready and delivering."""
    last = {}

    def well():
        nonlocal last
        last = look.sick(stage)
        return not last

    count = len(fleet.NODES)
    try:
        wait_for("health", SETTLES_WITHIN_S, well, 1)
    except Failure:
        return Finding("health green", False, "; ".join(f"{n}: {w}" for n, w in last.items()))
    return Finding("health green", True, f"{count} of {count} nodes alive, ready, delivering")
