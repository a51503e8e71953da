"""The tests. A package, so that what they share has one name everywhere (``tests.lab``, ``tests.conftest``)."""
