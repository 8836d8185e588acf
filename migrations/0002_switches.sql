-- What operators have decided while the service runs, such as a circuit breaker that is forced open.
-- No row: nobody has decided anything.
CREATE TABLE switches (
    name text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64),
    value text NOT NULL CHECK (length(value) BETWEEN 1 AND 200),
    note text NOT NULL DEFAULT '' CHECK (length(note) <= 200),
    changed_at timestamptz NOT NULL DEFAULT now()
);
