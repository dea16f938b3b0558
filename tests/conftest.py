"""Settings of all tests: hypothesis has no deadline, because how long an example takes says nothing about whether it is right; a
failure is told as soon as it is there, because a run may be cut off before its end."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("ringfort", deadline=None, print_blob=True)
settings.load_profile("ringfort")


class ToldAtOnce:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"FAILED {report.nodeid} ({report.when})")
            terminal.write_line(report.longreprtext)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ToldAtOnce(config))
