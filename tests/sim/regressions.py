"""Seeds that found a bug, and which: they are played for ever.  What a seed does changes with the simulator, so each bug also has a
test of its own where it was."""

REGRESSIONS: dict[int, str] = {
    29: "a note that came twice, the second time after its commit, was staged for ever",
    30: "a replicator asked a device that let itself be compared and took nothing again and again, without a rest",
    88: "two front doors gave one timestamp to two PUTs; the device that kept the other one said 'stored'",
    373: "a write that only one device took owed no row: six replicas, three devices of the container, so three told nobody",
    377: "a disk died between the check of a block and its reading, and the error was nobody's: the worker ended",
}
