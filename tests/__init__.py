"""The tests: structure (here), unit, conformance, integration, simulation and fault, in that order."""
