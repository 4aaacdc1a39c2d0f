"""The scenarios: what is broken, for how long, and what must be seen meanwhile. Each is given the
stage, the load that runs, and `tell`, which writes a line of the report."""

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Callable

from . import fleet, look
from .shell import Failure, wait_for

# How long something is away: longer than a few tries of a link, shorter than a person's patience.
AWAY_S = 6
# Longest until a fault is told, and until a node is well again after it.
TOLD_WITHIN_S = 60
WELL_WITHIN_S = 120
# A thin line, bits a second: less than the load of a drill needs there, so that a queue builds up.
THIN_BITS = 8_000
# Messages that then wait at once, at least.
WAITING_MIN = 10


@dataclass(frozen=True)
class Scenario:
    """Its name, what it does in a sentence, and how."""

    name: str
    what: str
    run: Callable


ALL = []


def scenario(name, what):
    """Adds a function to the list."""
    def add(function):
        ALL.append(Scenario(name, what, function))
        return function
    return add


def well_again(stage, tell, *nodes):
    """Waits until the nodes are alive, ready and delivering."""
    took, _ = wait_for(f"{', '.join(nodes)} to be well", WELL_WITHIN_S,
                       lambda: not look.sick(stage, nodes))
    tell(f"{', '.join(nodes)} alive, ready, delivering {took:.1f} s later")


def killing(node):
    """KILL, away for a while, started again."""
    def run(stage, load, tell):
        stage.kill(node)
        try:
            tell(f"killed {node}; away for {AWAY_S} s")
            time.sleep(AWAY_S)
        finally:
            stage.start(node)
        tell(f"started {node}")
        well_again(stage, tell, node)
    return run


KILLS = {
    "kill-proxy": "proxy-a1",
    "kill-customer-mlm": "mlm-a",
    "kill-aggregation": "aggregation",
    "kill-applications-mlm": "applications-mlm",
    "kill-app-server": "app-server",
}
for name, victim in KILLS.items():
    scenario(name, f"{victim} is killed under load, and started again")(killing(victim))


def pausing(node):
    """All processes of a node stand still, then go on."""
    def run(stage, load, tell):
        stage.pause(node)
        try:
            tell(f"froze {node} for {AWAY_S} s: its connections stay open, nobody answers")
            time.sleep(AWAY_S)
        finally:
            stage.resume(node)
        tell(f"thawed {node}")
        well_again(stage, tell, node)
    return run


scenario("pause-customer-mlm", "mlm-a stands still in the middle of everything, then goes on")(
    pausing("mlm-a"))
scenario("pause-app-server", "app-server stands still, then goes on")(pausing("app-server"))


@scenario("cut-line", "the line of customer A is cut: proxies take on, everything waits in mlm-a")
def cut_line(stage, load, tell):
    """Between a customer's MLM and the aggregation MLM."""
    stage.cut("mlm-a", "line-a")
    try:
        tell("cut line-a at mlm-a")
        took = load.wait_accepted(5)
        waiting = look.waiting(stage, "mlm-a")
        tell(f"every proxy accepted 5 more of each kind while the line was cut ({took:.1f} s); "
             f"{waiting} messages wait in mlm-a")
        time.sleep(AWAY_S)
    finally:
        stage.mend("mlm-a", "line-a")
    tell("mended line-a")
    well_again(stage, tell, "mlm-a")


@scenario("fill-disk", "the disk of proxy-b is filled to the last byte, then there is room again")
def fill_disk(stage, load, tell):
    """The node says so, refuses, stays alive, and goes on by itself."""
    node = fleet.SMALL_DISK
    def told():
        return any("storage_down" in why for why in look.health(stage, node))

    try:
        stage.fill_disk()
        tell(f"filled the disk of {node}")
        took, _ = wait_for(f"{node} to say storage_down", TOLD_WITHIN_S, told)
        tell(f"{node} says storage_down {took:.1f} s later, and refuses")
    finally:
        stage.make_room()
    tell("made room")
    well_again(stage, tell, node)


@scenario("slow-line", f"the line of customer B becomes a thin one of {THIN_BITS // 1000} kbit/s")
def slow_line(stage, load, tell):
    """Messages pile up in the proxy, which takes on; nothing is given up."""
    node, network = fleet.SMALL_DISK, "line-b"
    stage.slow(node, network, THIN_BITS)
    try:
        tell(f"{network} takes {THIN_BITS // 1000} kbit/s from {node}")
        took, waiting = wait_for(
            f"{WAITING_MIN} messages to wait in {node}", TOLD_WITHIN_S,
            lambda: (count := look.waiting(stage, node)) >= WAITING_MIN and count)
        tell(f"{waiting} messages wait in {node} {took:.1f} s later")
        took = load.wait_accepted(5)
        tell(f"every proxy accepted 5 more of each kind meanwhile ({took:.1f} s)")
    finally:
        stage.full_speed(node, network)
    tell(f"{network} at full speed")
    well_again(stage, tell, node)


def set_clock_off(stage, node, seconds):
    """By the node's own drill: no container and no namespace has a clock of its own."""
    done = stage.callhome(node, "drill", "clock", "--off-by-s", str(seconds))
    if done.returncode != 0:
        raise Failure(f"{node}: {done.stderr.strip()}")


def stamps_off(stage, word, proxy):
    """How far the newest stamp of a proxy is from this machine's clock, seconds; None: no message
    of it yet."""
    events = look.answer(stage, fleet.TOP, "ls", "events", "--text", f"{word} {proxy}", "--limit",
                         "1") or []
    stamps = [datetime.fromisoformat(event["accepted_at"]) for event in events]
    return (max(stamps) - datetime.now(timezone.utc)).total_seconds() if stamps else None


@scenario("skew-clock", "the clock of proxy-b jumps an hour ahead, an hour back, then is right")
def skew_clock(stage, load, tell):
    """The stamps say so; what arrives, and in what order it is kept, does not go by them."""
    node = "proxy-b"
    try:
        for off in (3600, -3600):
            set_clock_off(stage, node, off)
            tell(f"set the clock of {node} {off} s off")
            load.wait_accepted(5)

            def seen():
                apart = stamps_off(stage, load.word, node)
                return apart is not None and abs(apart - off) < 60

            took, _ = wait_for(f"stamps that are {off} s off", TOLD_WITHIN_S, seen)
            tell(f"messages arrive with stamps {off} s off ({took:.1f} s)")
    finally:
        set_clock_off(stage, node, 0)
    tell(f"set the clock of {node} right")
    well_again(stage, tell, node)


@scenario("restart-all", "every node is told to end, all at once, and all are started again")
def restart_all(stage, load, tell):
    """An orderly end of everything, in no order."""
    started = time.monotonic()
    stage.stop(*fleet.NODES)
    tell(f"ended all {len(fleet.NODES)} nodes in {time.monotonic() - started:.1f} s")
    stage.start(*fleet.NODES)
    tell("started them")
    well_again(stage, tell, *fleet.NODES)


def named(name):
    """The scenarios that a word of the command line means."""
    if name == "all":
        return ALL
    found = [one for one in ALL if one.name == name]
    if not found:
        known = " ".join(one.name for one in ALL)
        raise Failure(f"no scenario {name!r}", f"one of: all {known}", 64)
    return found
