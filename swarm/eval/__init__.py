"""How good a verification rule is: tasks, decoding, statistics, a report (docs/evaluation.md)."""
