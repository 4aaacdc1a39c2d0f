"""The load of a drill: senders at every proxy, and the record of what was accepted."""

import subprocess
import threading

from . import fleet
from .shell import Failure, wait_for

# What somebody answers for, and what nobody does.
ANSWERED, UNANSWERED = ("inform", "call"), ("line",)
# Longest that a sender may take to see that it is to end: a call waits 10 s for a proxy.
ENDS_WITHIN_S = 60


class Load:
    """Senders that run, and what they have said so far."""

    def __init__(self, stage, word):
        self.stage, self.word = stage, word
        self.accepted, self.refused, self.lines = [], [], []
        self.by_sender = {(proxy, kind): 0 for proxy in fleet.PROXIES for kind in ANSWERED}
        self.lock = threading.Lock()
        self.senders, self.readers = [], []

    def start(self):
        """One of each kind at each proxy."""
        for proxy in fleet.PROXIES:
            for kind in (*ANSWERED, *UNANSWERED):
                sender = self.stage.sender(proxy, kind, self.word)
                reader = threading.Thread(target=self._read, args=(proxy, kind, sender.stdout))
                reader.start()
                self.senders.append(sender)
                self.readers.append(reader)

    def _read(self, proxy, kind, lines):
        for line in lines:
            said, _, text = line.rstrip("\n").partition(" ")
            with self.lock:
                if kind in UNANSWERED:
                    self.lines.append(text)
                elif said == "yes":
                    self.accepted.append(text)
                    self.by_sender[proxy, kind] += 1
                else:
                    self.refused.append(text)

    def wait_accepted(self, more, within_s=90):
        """Waits until each proxy has accepted so many more of each kind; seconds it took."""
        with self.lock:
            wanted = {sender: seen + more for sender, seen in self.by_sender.items()}

        def there():
            if any(sender.poll() is not None for sender in self.senders):
                raise Failure("a sender of the load ended by itself")
            with self.lock:
                return all(self.by_sender[sender] >= wanted[sender] for sender in wanted)

        took, _ = wait_for("informs and calls to be accepted at every proxy", within_s, there, 0.1)
        return took

    def stop(self):
        """Ends the senders; what they have said is then complete."""
        self.stage.stop_senders(self.word)
        for sender in self.senders:
            try:
                sender.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                sender.kill()
                raise Failure("a sender of the load does not end") from None
        for reader in self.readers:
            reader.join(ENDS_WITHIN_S)
        self.senders, self.readers = [], []
