"""Postline's tests: unit, conformance, simulation, integration and fault."""
