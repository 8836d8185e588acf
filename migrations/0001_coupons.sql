-- What is offered, how much of it is left, who holds what, and what is still to be told.
-- Every time is the database's own: a row's now(), never a client's clock.

CREATE TABLE coupons (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    total integer NOT NULL CHECK (total >= 0),
    opens_at timestamptz NOT NULL,
    closes_at timestamptz NOT NULL,
    valid_days integer NOT NULL CHECK (valid_days BETWEEN 1 AND 3650),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paused', 'closed')),
    -- After a restock of a sold-out coupon: when its new pieces can be had. Until then every process
    -- has seen the restock, and none tells a new holder «sold out» from memory.
    stocked_from timestamptz NOT NULL DEFAULT '-infinity',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT coupons_window CHECK (opens_at < closes_at),
    -- PostgreSQL knows times that its clients cannot read, and one of them would spoil every list.
    CONSTRAINT coupons_years CHECK (opens_at >= '2000-01-01Z' AND closes_at < '9000-01-01Z')
);

-- The hot row of an event, apart from the description so that it stays narrow. The fill factor
-- leaves room on its page, so that an update touches no index and is pruned in place.
CREATE TABLE coupon_stock (
    coupon_id bigint NOT NULL REFERENCES coupons,
    lane smallint NOT NULL CHECK (lane = 0),
    remaining integer NOT NULL CHECK (remaining >= 0),
    PRIMARY KEY (coupon_id, lane)
) WITH (fillfactor = 50);

-- No foreign key to coupons: its check would lock the one coupon row of the event once more for
-- every issuance (docs/decisions/0002). Coupons are never deleted, and `verify` looks for strays.
CREATE TABLE issuances (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    coupon_id bigint NOT NULL,
    user_id text NOT NULL CHECK (length(user_id) BETWEEN 1 AND 128),
    code text NOT NULL UNIQUE CHECK (length(code) >= 20),
    idempotency_key text CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    issued_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT issuances_one_per_user UNIQUE (coupon_id, user_id)
);
CREATE UNIQUE INDEX issuances_idempotency ON issuances (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX issuances_of_user ON issuances (user_id, id DESC);

-- One row per message to send, written by the statement that makes the fact.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    -- Not NOT NULL but a named check: the issue statement relies on this refusal and must be able
    -- to tell it from any other.
    issuance_id bigint CONSTRAINT outbox_needs_a_reserved_piece CHECK (issuance_id IS NOT NULL),
    created_at timestamptz NOT NULL DEFAULT now(),
    leased_until timestamptz,
    sent_at timestamptz,
    CONSTRAINT outbox_once UNIQUE (issuance_id, kind)
);
-- The relay reads only what is unsent, however many rows have been sent.
CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_at IS NULL;
