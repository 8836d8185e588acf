"""`make load`: an event's crowd against the service, and every promise checked at the end.

A scenario says how the crowd comes; a plan makes requests of it; worker processes send them; the
ledger is what the database holds afterwards. Promises, history and figures are computed from results
and ledger, and the record holds all of it. Text, page and plots are made from the record alone.
"""
