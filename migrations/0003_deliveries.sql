-- Several channels, each with its own fate: a row per message and channel. The issue statement
-- writes the outbox row only, as before; the relay makes these from it.
CREATE TABLE deliveries (
    outbox_id bigint NOT NULL REFERENCES outbox ON DELETE CASCADE,
    channel text NOT NULL CHECK (length(channel) BETWEEN 1 AND 32),
    -- The outbox row's, so that one event's crowd can be told from another's without a join.
    coupon_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    -- When it may be handed over: at once, after a lease that ran out, after the pause that
    -- follows a failure.
    due_at timestamptz NOT NULL,
    give_up_at timestamptz NOT NULL,
    -- A try that was begun and has no failure beside it ended with its process.
    tries integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    reason text,
    sent_at timestamptz,
    dead_at timestamptz,
    PRIMARY KEY (outbox_id, channel),
    CONSTRAINT deliveries_sent_or_dead CHECK (sent_at IS NULL OR dead_at IS NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

-- The relay reads only what is open, coupon by coupon, however many have been sent.
CREATE INDEX deliveries_open ON deliveries (channel, coupon_id, due_at, outbox_id)
    WHERE sent_at IS NULL AND dead_at IS NULL;
CREATE INDEX deliveries_dead ON deliveries (dead_at) WHERE dead_at IS NOT NULL;

-- What has not become deliveries yet; `channels_left` counts down to the last channel's «sent».
ALTER TABLE outbox ADD COLUMN planned_at timestamptz, ADD COLUMN channels_left integer;
UPDATE outbox SET planned_at = sent_at, channels_left = 0 WHERE sent_at IS NOT NULL;
DROP INDEX outbox_unsent;
ALTER TABLE outbox DROP COLUMN leased_until;
CREATE INDEX outbox_unplanned ON outbox (id) WHERE planned_at IS NULL;

-- Where rows go that were sent long ago, so that the outbox stays as small as what is under way.
CREATE TABLE outbox_archive (
    id bigint PRIMARY KEY,
    kind text NOT NULL,
    issuance_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    sent_at timestamptz NOT NULL,
    CONSTRAINT outbox_archive_once UNIQUE (issuance_id, kind)
);
CREATE VIEW outbox_and_archive AS
    SELECT id, kind, issuance_id, created_at, sent_at FROM outbox
    UNION ALL
    SELECT id, kind, issuance_id, created_at, sent_at FROM outbox_archive;
