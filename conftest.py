"""The fixture modules of the suite."""

pytest_plugins = [
    "fixtures.options",
    "fixtures.session",
    "fixtures.collection",
    "fixtures.provision",
    "fixtures.records",
    "fixtures.progress",
    "fixtures.finish",
]
