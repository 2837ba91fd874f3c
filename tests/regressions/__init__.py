"""Behaviour that users of fast loops once lost: each scenario of their reports is a test."""
