"""What every daemon has: settings, log lines, numbers, health, and the one loop for background work.

config    TOML to a frozen dataclass, parsed once
log       key=value lines to a sink
metrics   counters, gauges, histograms as Prometheus text; several workers' texts as one
requests  a server's LogLine as a line and as numbers
worker    Worker: one unit at a time, and how far its pass is; once
runner    runs a Worker (paced, backing off, woken); Roster: a process's Runners by name
tally     what passes come to, rates, ETA; pure
pacing    token bucket and back-off, pure
health    handlers for /metrics and /health
"""
