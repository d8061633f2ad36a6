-- What gateways send. Every object is made in the first schema of the search path.

CREATE TABLE installation (
    id text NOT NULL  -- names the broker sessions of this database
);
INSERT INTO installation VALUES (substr(md5(random()::text || clock_timestamp()::text), 1, 8));

CREATE TABLE sites (
    id        int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name      text NOT NULL UNIQUE,
    time_zone text NOT NULL DEFAULT 'UTC',  -- for days in the views: UPDATE sites SET time_zone = 'Europe/Berlin'
    since     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE meters (
    id      int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site    text NOT NULL,
    serial  text NOT NULL,             -- '' when the meter shows none: then gateway and name tell meters apart
    gateway text NOT NULL,             -- which read it last, and the name it has there
    name    text NOT NULL,
    since   timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX meters_serial ON meters (site, serial) WHERE serial <> '';
CREATE UNIQUE INDEX meters_name ON meters (site, gateway, name) WHERE serial = '';
CREATE INDEX meters_by_serial ON meters (serial);

CREATE TABLE channels (
    id   int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE          -- 1-0:1.8.0*255/3:2
);

CREATE TABLE series (                  -- which meter has which channel
    meter   int NOT NULL,
    channel int NOT NULL,
    PRIMARY KEY (meter, channel)
);

-- A sequence of numbers, and how far it is stored. Written in the transaction
-- that stores the rows: this is what makes every reading stored once.
CREATE TABLE streams (
    id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site       text NOT NULL,
    gateway    text NOT NULL,
    epoch      text NOT NULL,          -- 16 hexadecimal digits
    lane       smallint NOT NULL,
    through    bigint NOT NULL DEFAULT 0,                -- every number up to here is stored or lost: what gateways are told
    floor      bigint NOT NULL DEFAULT 0,                -- below and at this nothing is looked at again
    stored     int8multirange NOT NULL DEFAULT '{}',     -- numbers above floor that are stored
    lost       int8multirange NOT NULL DEFAULT '{}',     -- numbers above floor that are declared lost
    high       bigint NOT NULL DEFAULT 0,                -- the highest number seen
    rows       bigint NOT NULL DEFAULT 0,                -- that were stored
    gap_since  timestamptz,                              -- since when numbers are missing
    since      timestamptz NOT NULL DEFAULT now(),
    last_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (site, gateway, epoch, lane)
) WITH (fillfactor = 50);

-- Numbers that carry no row.
CREATE TABLE holes (
    stream  int NOT NULL REFERENCES streams,
    first   bigint NOT NULL,
    last    bigint NOT NULL,
    reason  text NOT NULL,
    count   bigint NOT NULL,           -- rows lost as the gateway says; 0 when nobody knows
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, first, last)
);

CREATE TABLE catalogues (
    hash    text PRIMARY KEY,          -- 16 hexadecimal digits
    site    text NOT NULL,             -- from where it came first
    gateway text NOT NULL,
    bytes   bytea NOT NULL,
    since   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE dead_letters (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site    text NOT NULL,             -- of the topic
    gateway text NOT NULL,
    topic   text NOT NULL,
    reason  text NOT NULL,             -- a word
    detail  text NOT NULL,             -- a sentence
    size    bigint NOT NULL,
    payload bytea NOT NULL,            -- the first 128 KiB of it, of some none
    digest  bytea NOT NULL,
    times   bigint NOT NULL DEFAULT 1, -- how often the same came
    at      timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (topic, digest)
);
CREATE INDEX dead_letters_gateway ON dead_letters (site, gateway, id);

-- The readings. Key: meter, channel, time, occurrence. What comes again equal is
-- dropped; what comes again different is the next revision.
CREATE TABLE readings (
    time       timestamptz NOT NULL,   -- of capture; the END of an interval
    meter      int NOT NULL,
    channel    int NOT NULL,
    occurrence smallint NOT NULL,      -- 1 for the second row of one time (clock set back), and so on
    revision   smallint NOT NULL DEFAULT 0,
    lane       smallint NOT NULL,      -- 0 alarm, 1 billing, 2 interval, 3 instant
    kind       smallint NOT NULL,      -- of the value, as in batch.proto
    unit       smallint NOT NULL,      -- IEC 62056-6-2
    source     smallint NOT NULL,      -- of the time: 0 the gateway's clock, 1 the meter's
    stream     int NOT NULL,           -- how it came
    quality    bigint NOT NULL,        -- bits; 0 is good
    period     bigint NOT NULL,        -- seconds; 0 for a moment
    bound      bigint,                 -- the largest error of time in milliseconds; null when not known
    sequence   bigint NOT NULL,
    received   timestamptz NOT NULL DEFAULT now(),
    value      numeric,                -- exactly as the meter gave it; null when it is no number
    text       text,                   -- of a text
    octets     bytea,                  -- of octets, a COSEM date-time, and a text that is not UTF-8
    status     numeric,                -- the meter's own status word
    PRIMARY KEY (meter, channel, time, occurrence, revision)
) /*partition*/;

CREATE TABLE units (id smallint PRIMARY KEY, symbol text NOT NULL);
CREATE TABLE quality_bits (bit smallint PRIMARY KEY, name text NOT NULL);
CREATE TABLE lanes (id smallint PRIMARY KEY, name text NOT NULL);
