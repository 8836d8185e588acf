"""Issuing: the statement, its outcomes, what is offered and what a holder has."""
