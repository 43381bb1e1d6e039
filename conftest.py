"""The fixture modules of the suite; each stands after those it imports."""

pytest_plugins = [
    "fixtures.options",
    "fixtures.session",
    "fixtures.collection",
    "fixtures.provision",
    "fixtures.progress",
    "fixtures.records",
    "fixtures.finish",
    "fixtures.parallel",
    "fixtures.fleet",
    "fixtures.power_run",
]
