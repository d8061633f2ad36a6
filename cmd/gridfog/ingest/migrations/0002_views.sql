-- For people. docs/ingest.md describes them.

CREATE FUNCTION quality_words(quality bigint) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN quality = 0 THEN 'good' ELSE
        (SELECT string_agg(coalesce(b.name, 'bit' || n), '+' ORDER BY n)
         FROM generate_series(0, 31) n LEFT JOIN quality_bits b ON b.bit = n
         WHERE quality & (1::bigint << n) <> 0) END
$$;

CREATE FUNCTION channel_short(channel text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT regexp_replace(channel, '(\*255)?/(1|3|4|5):2$', '')
$$;

-- Every row that is stored, revisions too.
CREATE VIEW all_readings AS
SELECT m.site, m.gateway, m.name AS meter, m.serial, c.name AS channel, channel_short(c.name) AS obis, r.time, r.occurrence, r.revision,
       r.value, r.text, r.octets, u.symbol AS unit, quality_words(r.quality) AS quality, l.name AS lane,
       r.period, CASE r.source WHEN 0 THEN 'gateway' ELSE 'meter' END AS clock, r.bound AS clock_error_ms, r.status,
       s.epoch, r.sequence, r.received, r.meter AS meter_id, r.channel AS channel_id, r.quality AS quality_bits
FROM readings r
JOIN meters m ON m.id = r.meter
JOIN channels c ON c.id = r.channel
JOIN streams s ON s.id = r.stream
LEFT JOIN units u ON u.id = r.unit
LEFT JOIN lanes l ON l.id = r.lane;

-- Of each reading the last revision.
CREATE VIEW current_readings AS
SELECT a.* FROM all_readings a
WHERE NOT EXISTS (
    SELECT FROM readings n
    WHERE n.meter = a.meter_id AND n.channel = a.channel_id AND n.time = a.time AND n.occurrence = a.occurrence AND n.revision > a.revision);

-- Of each meter and channel the newest reading.
CREATE VIEW latest_values AS
SELECT m.site, m.gateway, m.name AS meter, m.serial, c.name AS channel, channel_short(c.name) AS obis, r.time, r.value, r.text, u.symbol AS unit,
       quality_words(r.quality) AS quality, now() - r.time AS age
FROM series s
JOIN meters m ON m.id = s.meter
JOIN channels c ON c.id = s.channel
CROSS JOIN LATERAL (
    SELECT * FROM readings r WHERE r.meter = s.meter AND r.channel = s.channel
    ORDER BY r.time DESC, r.occurrence DESC, r.revision DESC LIMIT 1) r
LEFT JOIN units u ON u.id = r.unit;

-- The meter's own billing rows: which register stood where at the beginning of
-- a day (of the site's time zone), or when the meter closed a period.
CREATE VIEW billing_registers AS
SELECT a.site, a.gateway, a.meter, a.serial, a.obis, (a.time AT TIME ZONE z.time_zone)::date AS day, a.time AT TIME ZONE z.time_zone AS local_time,
       a.time, a.value, a.unit, a.quality, a.quality_bits & (1 << 2) <> 0 AS estimated, a.occurrence, a.revision, a.channel, a.meter_id, a.channel_id
FROM current_readings a
JOIN sites z ON z.name = a.site
WHERE a.lane = 'billing' AND a.value IS NOT NULL;

-- What a register advanced by from one billing row to the next.
CREATE VIEW billing_periods AS
SELECT site, gateway, meter, serial, obis, day AS first_day, lead(day) OVER w AS next_day,
       value AS begins_at, lead(value) OVER w AS ends_at, lead(value) OVER w - value AS consumed, unit,
       quality AS quality_begin, lead(quality) OVER w AS quality_end
FROM billing_registers
WINDOW w AS (PARTITION BY meter_id, channel_id, unit ORDER BY time, occurrence);

-- Values of intervals: load profiles.
CREATE VIEW interval_energies AS
SELECT a.site, a.gateway, a.meter, a.serial, a.obis, a.time - make_interval(secs => a.period) AS begins, a.time AS ends, a.period,
       a.value, a.unit, a.quality, a.occurrence, a.revision, a.received, a.channel, a.meter_id, a.channel_id
FROM current_readings a
WHERE a.period > 0;

-- How much of a day's intervals came, and how much by 8 and 12 hours after it.
CREATE VIEW interval_days AS
SELECT i.site, i.gateway, i.meter, i.serial, i.obis, ((i.begins AT TIME ZONE z.time_zone)::date) AS day, i.period,
       count(*) AS intervals, count(i.value) AS with_value,
       round(extract(epoch FROM ((((i.begins AT TIME ZONE z.time_zone)::date + 1)::timestamp AT TIME ZONE z.time_zone)
           - (((i.begins AT TIME ZONE z.time_zone)::date)::timestamp AT TIME ZONE z.time_zone))) / i.period) AS expected,
       count(i.value) FILTER (WHERE i.received <= (((i.begins AT TIME ZONE z.time_zone)::date + 1)::timestamp AT TIME ZONE z.time_zone) + interval '8 hours') AS by_8h,
       count(i.value) FILTER (WHERE i.received <= (((i.begins AT TIME ZONE z.time_zone)::date + 1)::timestamp AT TIME ZONE z.time_zone) + interval '12 hours') AS by_12h
FROM interval_energies i
JOIN sites z ON z.name = i.site
WHERE i.occurrence = 0
GROUP BY i.site, i.gateway, i.meter, i.serial, i.obis, z.time_zone, 6, i.period;

-- Numbers that are missing and may still come, and those that never will.
CREATE VIEW gaps AS
SELECT s.site, s.gateway, l.name AS lane, s.epoch, lower(g) AS first, upper(g) - 1 AS last, upper(g) - lower(g) AS numbers,
       'missing' AS state, NULL AS reason, NULL::bigint AS rows_lost, s.gap_since AS since
FROM streams s JOIN lanes l ON l.id = s.lane,
     unnest(int8multirange(int8range(s.floor + 1, greatest(s.high, s.floor) + 1)) - s.stored - s.lost) g
UNION ALL
SELECT s.site, s.gateway, l.name, s.epoch, h.first, h.last, h.last - h.first + 1, 'lost', h.reason, nullif(h.count, 0), h.at
FROM holes h JOIN streams s ON s.id = h.stream JOIN lanes l ON l.id = s.lane;

-- How far each gateway's streams are.
CREATE VIEW stream_states AS
SELECT s.site, s.gateway, l.name AS lane, s.epoch, s.rows, s.through, s.high,
       coalesce((SELECT sum(upper(g) - lower(g)) FROM unnest(int8multirange(int8range(s.floor + 1, greatest(s.high, s.floor) + 1)) - s.stored - s.lost) g), 0) AS missing,
       s.gap_since, s.since, s.last_at
FROM streams s JOIN lanes l ON l.id = s.lane;

-- What was refused, by gateway and reason.
CREATE VIEW refusals AS
SELECT site, gateway, reason, count(*) AS letters, sum(times) AS times, max(last_at) AS last_at, (array_agg(detail ORDER BY last_at DESC))[1] AS last_detail
FROM dead_letters GROUP BY site, gateway, reason;
