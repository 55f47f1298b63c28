"""How good a rule is: tasks, decoding in process or over a swarm, statistics, and a report
(docs/evaluation.md)."""
