"""The checker of drills sees what it is there to see. Run by tests/deploy.rs."""

import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy"))

from parts import checker, look, scenarios  # noqa: E402


def words(findings):
    """Which of them hold."""
    return {finding.name: finding.ok for finding in findings}


class Checker(unittest.TestCase):
    def test_what_is_stored_once_is_well(self):
        findings = checker.judge(["a", "b"], ["l"], {"a": 1, "b": 1})
        self.assertEqual(words(findings), {"nothing lost": True, "nothing twice": True})

    def test_a_text_that_was_accepted_and_is_not_stored_is_lost(self):
        findings = checker.judge(["a", "b"], [], {"a": 1})
        self.assertEqual(words(findings), {"nothing lost": False, "nothing twice": True})
        self.assertIn("1 of 2", findings[0].found)
        self.assertIn("b", findings[0].found)

    def test_a_text_that_nobody_acknowledged_may_be_lost_and_not_come_twice(self):
        findings = checker.judge(["a"], ["l", "m"], {"a": 1, "l": 2})
        self.assertEqual(words(findings), {"nothing lost": True, "nothing twice": False})

    def test_a_load_of_nothing_shows_nothing(self):
        self.assertFalse(checker.judge([], [], {})[0].ok)

    def test_an_account_is_missed_when_it_is_silent_open_or_full(self):
        well = {node: {"balanced": True, "queued": 0} for node in checker.ACCOUNTS}
        self.assertEqual(checker.unsettled(well), [])
        for account in (None, {"balanced": False, "queued": 0}, {"balanced": True, "queued": 2}):
            self.assertEqual(len(checker.unsettled({**well, "mlm-a": account})), 1, account)

    def test_a_node_that_does_not_answer_is_not_well(self):
        class Silent:
            def callhome(self, *_words, timeout):
                return type("Done", (), {"stdout": "", "stderr": "no"})

        self.assertEqual(look.health(Silent(), "proxy-b"), ["does not answer"])

    def test_there_are_twelve_scenarios_of_different_names(self):
        self.assertEqual(len({one.name for one in scenarios.ALL}), 12)


unittest.main()
