-- The zone of sites.time_zone that a gateway told; null while none has. Where
-- time_zone is another one, or not the default, the operator has set it.
ALTER TABLE sites ADD COLUMN time_zone_told text;
