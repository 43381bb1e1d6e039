"""The fixture modules of the suite; each stands after those it imports."""

import os

os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")  # where selenium is, its trio would be imported at each start

pytest_plugins = [
    "fixtures.options",
    "fixtures.session",
    "fixtures.collection",
    "fixtures.telemetry.sampler",
    "fixtures.workbench",
    "fixtures.telemetry.meter",
    "fixtures.progress",
    "fixtures.records",
    "fixtures.judging",
    "fixtures.measuring",
    "fixtures.baseline.run",
    "fixtures.baseline.calibrate",
    "fixtures.finish",
    "fixtures.versus.run",
    "fixtures.fleet.parallel",
    "fixtures.fleet.run",
    "fixtures.power.run",
    "fixtures.serving.options",
    "fixtures.serving.run",
    "fixtures.serving.checking",
]
