"""What `make run` and `make test` add to the service: a PostgreSQL and a Valkey of their own, and a supervisor.

`run.py` prepares a start and greets, `supervisor.py` starts web server and worker and restarts what dies.
`embedded.py`, `postgres.py` and `valkey.py` start servers from binaries in Python packages, under `var/`,
without root or Docker. `processes.py` starts child processes and ends those of a killed predecessor.

Everything ends within 10 s of Ctrl-C, children included, and the data stays. No server needs this
package: in production the processes are started by hand or by the system (docs/decisions/0007).
"""
