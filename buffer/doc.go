// Package buffer keeps readings on flash until the fog has them, and for a
// while after. It is one file, readings.db, owned by one process at a time.
//
// Every lane (meter.Lane) is a queue of its own with sequence numbers from 1
// on, valid within the store's epoch. A number carries a row, or lies in a
// hole that says why there is none; no number is used twice. What was
// acknowledged stays, as the hot store, until its room is needed. Over its
// Quota the store gives up rows that were not delivered too, the least
// important first; it thins what it can before it drops it, declares every row
// in a hole and counts it by meter and channel.
//
// # Promises
//
// An Append that returned nil is on the disk: its rows, the cursors they
// advance and the holes of its losses together, or none of them. An Append
// that returned an error changed nothing that Peek shows, with one exception
// that no disk can rule out: when the very last sync fails, the rows may be
// there all the same, and appending them again makes duplicates with other
// numbers. Acknowledgements ride the next commit; a power cut may lose the
// last ones, and their rows are then handed out again under the same numbers.
//
// # Danger
//
// The file is mapped into memory. Shortening or overwriting it while the store
// is open damages it; the store then answers ErrDamaged, it does not crash.
// Copy it only when no process has it open.
//
// # Layout
//
// A bbolt file (page size 4096, free list synced) with these buckets:
//
//	meta       format, epoch, clean, commits, and lane/NAME: the lane's counters
//	alarm      the queue of a lane, likewise billing, interval, instant:
//	             8 octets first sequence number, big endian →
//	               a bucket with the one key "c": a chunk of rows
//	               or a value: a hole
//	cursors    meter, serial, profile → capture time
//	boots      4 octets number of the boot, big endian → kernel boot id
//	times      number of the boot → what was known of its time afterwards (times.go);
//	             made with the first
//	catalogue  "c" → the uplink's catalogue, opaque here
//	caches     meter → serial number and what its driver learnt of it, opaque here
//	dropped    "c" → rows given up for the quota, by meter and channel; made
//	             with the first
//
// Each chunk has a bucket of its own because bbolt rewrites large values with
// their neighbours; small chunks come to lie inline in their lane's page. The
// octets of a chunk are drawn in chunk.go, the others in record.go; both are in
// docs/formats.md too. Chunks and small values carry checksums; the tree around
// them has none, so Open walks it before bbolt maps it (pages.go).
package buffer
