"""Simulators and models behind one protocol."""
