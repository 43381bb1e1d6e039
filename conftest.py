"""The fixture modules of the suite; each stands after those it imports."""

pytest_plugins = [
    "fixtures.options",
    "fixtures.session",
    "fixtures.collection",
    "fixtures.telemetry",
    "fixtures.provision",
    "fixtures.meter",
    "fixtures.progress",
    "fixtures.records",
    "fixtures.judging",
    "fixtures.measuring",
    "fixtures.regression",
    "fixtures.calibrate",
    "fixtures.finish",
    "fixtures.versus_run",
    "fixtures.parallel",
    "fixtures.fleet",
    "fixtures.power_run",
]
