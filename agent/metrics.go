package agent

import (
	"runtime"
	"strconv"
	"syscall"
	"time"

	"gridgate/agent/poll"
	"gridgate/agent/status"
	"gridgate/agent/timesync"
	"gridgate/agent/web"
	"gridgate/buffer"
	"gridgate/configs"
	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

const (
	counter = "counter"
	gauge   = "gauge"
)

// maxLineLabels is how many lines have metrics of their own; connections with one
// meter have none, and together with the rest are the line "other".
const maxLineLabels = 32

// Metrics appends the metrics, in the text format of Prometheus. How many there
// are does not grow with the meters, unless the configuration wants that.
func (a *Agent) Metrics(b []byte) []byte {
	e := &exposition{b: b}
	r, cfg := a.Report(), a.config()
	e.family("gridgate_build_info", gauge, "The version that runs; always 1.").sample(1, "version", r.Version)
	e.one("gridgate_start_time_seconds", gauge, "When the agent started, in seconds since 1970.", unix(r.Started))
	a.meterMetrics(e, &r, cfg)
	a.lineMetrics(e, &r, cfg)
	a.rowMetrics(e, &r)
	a.storeMetrics(e, cfg)
	a.uplinkMetrics(e, &r)
	clockMetrics(e, &r)
	a.orderMetrics(e, &r, cfg)
	a.pageMetrics(e)
	processMetrics(e)
	return e.b
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// meterMetrics tells how many meters are how.
func (a *Agent) meterMetrics(e *exposition, r *status.Report, cfg *configs.Config) {
	states := map[string]int{}
	var last time.Time
	gaps, bad := int64(0), 0
	for i := range r.Meters {
		m := &r.Meters[i]
		states[m.State]++
		gaps += m.Gaps
		if m.Good != nil && m.Good.After(last) {
			last = *m.Good
		}
		if k := m.Clock; k != nil && (!k.Valid || max(k.Offset, -k.Offset)-k.Uncertainty > cfg.MeterClocks.Threshold.Seconds()) {
			bad++
		}
	}
	e.family("gridgate_meters", gauge, "Meters by how they do.")
	for _, s := range []poll.State{poll.Waiting, poll.OK, poll.Partial, poll.Failing, poll.Exchanged, poll.LockedOut} {
		e.sample(float64(states[string(s)]), "state", string(s))
	}
	e.one("gridgate_meter_clocks_wrong", gauge, "Meters whose clocks are surely off by more than meter_clocks.threshold, or invalid.", float64(bad))
	e.one("gridgate_profile_gaps_seconds", gauge, "How much of the profiles of all meters is still to be filled in.", float64(gaps))
	if !last.IsZero() {
		e.one("gridgate_last_answer_timestamp_seconds", gauge, "When a meter answered last, in seconds since 1970.", unix(last))
	}
	if cfg.Page.MeterMetrics {
		eachMeter(e, r)
	}
}

// eachMeter tells how each meter does.
func eachMeter(e *exposition, r *status.Report) {
	e.family("gridgate_meter_visits_total", counter, "Visits to a meter.")
	for i := range r.Meters {
		e.sample(float64(r.Meters[i].Visits), "meter", r.Meters[i].Meter)
	}
	e.family("gridgate_meter_answers_total", counter, "Visits to a meter that were answered.")
	for i := range r.Meters {
		e.sample(float64(r.Meters[i].Answered), "meter", r.Meters[i].Meter)
	}
	e.family("gridgate_meter_up", gauge, "1 where the last visit to a meter was answered by the one that is configured.")
	for i := range r.Meters {
		s := poll.State(r.Meters[i].State)
		e.sample(flag(s == poll.OK || s == poll.Partial), "meter", r.Meters[i].Meter)
	}
	e.family("gridgate_meter_last_answer_timestamp_seconds", gauge, "When a meter answered last, in seconds since 1970.")
	for i := range r.Meters {
		if good := r.Meters[i].Good; good != nil {
			e.sample(unix(*good), "meter", r.Meters[i].Meter)
		}
	}
	e.family("gridgate_meter_clock_offset_seconds", gauge, "A meter's clock less the gateway's, as last compared.")
	for i := range r.Meters {
		if k := r.Meters[i].Clock; k != nil {
			e.sample(k.Offset, "meter", r.Meters[i].Meter)
		}
	}
}

// lineMetrics tells what came of visits, by line.
func (a *Agent) lineMetrics(e *exposition, r *status.Report, cfg *configs.Config) {
	type count struct {
		label string
		n     poll.Counts
	}
	other := count{label: "other"}
	var all []count
	a.mu.Lock()
	for _, l := range cfg.Lines() {
		running := a.lines[l.Key]
		if running == nil {
			continue
		}
		n := running.poller.Counts()
		if len(all) < maxLineLabels && (l.Serial || len(l.Meters) > 1) {
			all = append(all, count{l.Key, n})
			continue
		}
		for i := range n {
			other.n[i] += n[i]
		}
	}
	a.mu.Unlock()
	e.family("gridgate_polls_total", counter, "Visits to meters, by line and by what came of them.")
	for _, c := range append(all, other) {
		for _, result := range poll.Results() {
			e.sample(float64(c.n[result]), "line", c.label, "result", result.String())
		}
	}
	if len(r.Bridges) == 0 {
		return
	}
	bridges := r.Bridges[:min(len(r.Bridges), maxLineLabels)]
	e.family("gridgate_plc_connected", gauge, "1 where the bridge of a power line answers.")
	for _, b := range bridges {
		e.sample(flag(b.Connected), "line", b.Line)
	}
	e.family("gridgate_plc_nodes", gauge, "Nodes that the bridge of a power line has.")
	for _, b := range bridges {
		e.sample(float64(len(b.Nodes)), "line", b.Line)
	}
	e.family("gridgate_plc_requests", gauge, "Requests to the nodes that a power line has now, since each came.")
	for _, b := range bridges {
		asked, _ := requests(b)
		e.sample(float64(asked), "line", b.Line)
	}
	e.family("gridgate_plc_requests_lost", gauge, "Of gridgate_plc_requests, those not answered in time.")
	for _, b := range bridges {
		_, lost := requests(b)
		e.sample(float64(lost), "line", b.Line)
	}
}

func requests(b status.Bridge) (asked, lost uint64) {
	for i := range b.Nodes {
		asked += b.Nodes[i].Asked
		lost += b.Nodes[i].Lost
	}
	return asked, lost
}

// rowMetrics tells how rows go through memory.
func (a *Agent) rowMetrics(e *exposition, r *status.Report) {
	in := a.intake.Stats()
	e.one("gridgate_rows_read_total", counter, "Rows read from meters, or pushed by them.", float64(in.Read))
	e.one("gridgate_rows_stored_total", counter, "Rows committed to the buffer.", float64(in.Stored))
	e.one("gridgate_rows_dropped_total", counter, "Rows lost since the buffer could not be written and memory ran out.", float64(in.Dropped))
	e.one("gridgate_rows_reread_total", counter, "Rows given up in memory that are read from their meters again.", float64(in.Reread))
	e.one("gridgate_rows_waiting", gauge, "Rows in memory that wait for their commit.", float64(in.Waiting))
	e.family("gridgate_commits_total", counter, "Commits of rows to the buffer.")
	e.sample(float64(in.Commits), "result", "ok")
	e.sample(float64(in.Failed), "result", "failed")
	if !in.Last.IsZero() {
		e.one("gridgate_last_commit_timestamp_seconds", gauge, "When rows were committed last, in seconds since 1970.", unix(in.Last))
	}
	e.family("gridgate_lane_rows_total", counter, "Rows of a lane that were given a number, since the epoch of the buffer began.")
	for _, l := range r.Lanes {
		e.sample(float64(l.Last), "lane", l.Lane)
	}
	e.family("gridgate_lane_rows_delivered_total", counter, "Rows of a lane that the fog has or that were declared lost, since the epoch began.")
	for _, l := range r.Lanes {
		e.sample(float64(l.Acked), "lane", l.Lane)
	}
	e.family("gridgate_lane_rows_lost_total", counter, "Rows of a lane given up before the fog had them, since the epoch began.")
	for _, l := range r.Lanes {
		e.sample(float64(l.Lost), "lane", l.Lane)
	}
	e.family("gridgate_backlog_rows", gauge, "Rows of a lane that wait to be delivered.")
	for _, l := range r.Lanes {
		e.sample(float64(l.Last-min(l.Acked, l.Last)), "lane", l.Lane)
	}
}

// storeMetrics tells of the buffer and its flash.
func (a *Agent) storeMetrics(e *exposition, cfg *configs.Config) {
	st, err := a.store.get().Stat()
	e.one("gridgate_buffer_open", gauge, "1 while the buffer can be used; without it rows wait in memory.", flag(err == nil))
	if err == nil {
		laneMetric(e, &st, "gridgate_backlog_bytes", gauge, "Flash that the rows of a lane take that wait to be delivered.", func(l *buffer.LaneStat) uint64 { return l.Bytes - min(l.HotBytes, l.Bytes) })
		laneMetric(e, &st, "gridgate_buffer_lane_bytes", gauge, "Flash that the rows of a lane take, delivered or not.", func(l *buffer.LaneStat) uint64 { return l.Bytes })
		laneMetric(e, &st, "gridgate_buffer_lane_rows", gauge, "Rows of a lane that are kept, delivered or not.", func(l *buffer.LaneStat) uint64 { return l.Rows })
		laneMetric(e, &st, "gridgate_buffer_holes", gauge, "Stretches of numbers of a lane that are declared to have no rows.", func(l *buffer.LaneStat) uint64 { return l.Holes })
		laneMetric(e, &st, "gridgate_buffer_damaged_rows", gauge, "Numbers of a lane in damaged chunks that were met since the start.", func(l *buffer.LaneStat) uint64 { return l.Damaged })
		e.one("gridgate_buffer_commits_total", counter, "Commits of the buffer's file, since its epoch began.", float64(st.Commits))
		e.one("gridgate_buffer_file_bytes", gauge, "Size of the buffer's file.", float64(st.FileBytes))
		e.one("gridgate_buffer_free_bytes", gauge, "Of the buffer's file, what new rows can take.", float64(st.FreeBytes))
	}
	if total, free, err := sys.Room(cfg.Buffer.Path); err == nil {
		e.one("gridgate_disk_size_bytes", gauge, "Size of the file system that the buffer is on.", float64(total))
		e.one("gridgate_disk_free_bytes", gauge, "Of that, what is free.", float64(free))
	}
}

func laneMetric(e *exposition, st *buffer.Stat, name, kind, help string, of func(*buffer.LaneStat) uint64) {
	e.family(name, kind, help)
	for i := range st.Lanes {
		e.sample(float64(of(&st.Lanes[i])), "lane", st.Lanes[i].Lane.String())
	}
}

// uplinkMetrics tells of the way to the fog.
func (a *Agent) uplinkMetrics(e *exposition, r *status.Report) {
	e.one("gridgate_uplink_connected", gauge, "1 while the broker takes what is sent.", flag(r.Uplink.Connected))
	e.one("gridgate_uplink_away_seconds", gauge, "For how long the fog has not been reached, or since the start; to 15 s.", a.reached.away().Seconds())
	a.mu.Lock()
	u := a.uplink
	a.mu.Unlock()
	if u == nil || u.uplink == nil {
		return
	}
	s := u.uplink.Stats()
	e.one("gridgate_uplink_attempts_total", counter, "Attempts to connect.", float64(s.Attempts))
	e.one("gridgate_uplink_reconnects_total", counter, "Connections after the first.", float64(s.Reconnects))
	e.one("gridgate_uplink_rows_acked_total", counter, "Rows that the broker acknowledged.", float64(s.Rows))
	e.one("gridgate_uplink_rows_resent_total", counter, "Rows sent again since the fog asked or did not confirm.", float64(s.Resent))
	e.one("gridgate_uplink_messages_ignored_total", counter, "Messages of the fog that were foreign, impossible or unreadable.", float64(s.Ignored))
	e.one("gridgate_uplink_bytes_total", counter, "Octets published, with topics and the headers of MQTT.", float64(s.Bytes))
	e.family("gridgate_uplink_lane_batches_total", counter, "Batches of a lane that were published, repetitions included.")
	for _, lane := range meter.Lanes() {
		e.sample(float64(s.Lanes[lane].Batches), "lane", lane.String())
	}
	e.family("gridgate_uplink_lane_bytes_total", counter, "Octets of the batches of a lane that were published.")
	for _, lane := range meter.Lanes() {
		e.sample(float64(s.Lanes[lane].Bytes), "lane", lane.String())
	}
	e.one("gridgate_uplink_window_bytes", gauge, "Octets that may be under way.", float64(s.Window))
	e.one("gridgate_uplink_rate_bytes_per_second", gauge, "The rate of the link as measured; 0 is not known.", s.Rate)
	e.one("gridgate_uplink_puback_seconds", gauge, "From publishing to its acknowledgement, smoothed.", s.Puback.Seconds())
	if u.cfg.Budget != (configs.Budget{}) {
		e.one("gridgate_uplink_budget_day_spent_bytes", gauge, "Octets spent today.", float64(s.DayBytes))
		e.one("gridgate_uplink_budget_month_spent_bytes", gauge, "Octets spent this month.", float64(s.MonthBytes))
		e.one("gridgate_uplink_budget_spent", gauge, "1 while the budget is spent, so that interval and instant wait.", flag(s.Withheld))
	}
	e.one("gridgate_uplink_unconfirmed_lanes", gauge, "Lanes that the broker takes and the fog does not confirm.", float64(len(s.Unconfirmed)))
}

// clockMetrics tells of the gateway's clock.
func clockMetrics(e *exposition, r *status.Report) {
	c := &r.Clock
	e.family("gridgate_clock_state", gauge, "The state of the gateway's clock: 1 for the one that it is in.")
	for _, s := range []timesync.State{timesync.Synchronised, timesync.Holdover, timesync.Unsynchronised} {
		e.sample(flag(c.State == s.String()), "state", s.String())
	}
	e.one("gridgate_clock_offset_seconds", gauge, "The true time less the clock's, as far as known.", c.Offset)
	if c.Bound != nil {
		e.one("gridgate_clock_bound_seconds", gauge, "The largest error of the clock; absent where nobody knows.", *c.Bound)
	}
	if c.LastSync != nil {
		e.one("gridgate_clock_last_sync_timestamp_seconds", gauge, "When the time was learnt last, in seconds since 1970.", unix(*c.LastSync))
	}
	e.one("gridgate_clock_drift_ratio", gauge, "What the oscillator is slow by, as a share.", c.Drift/1e6)
	e.one("gridgate_clock_steps_total", counter, "Times that the clock was set.", float64(c.Steps))
}

// orderMetrics tells of the configuration and of orders.
func (a *Agent) orderMetrics(e *exposition, r *status.Report, cfg *configs.Config) {
	e.family("gridgate_config_info", gauge, "The configuration that runs; always 1.").sample(1, "sha256", cfg.Hash()[:min(len(cfg.Hash()), 16)])
	e.one("gridgate_config_layers", gauge, "Documents that lie on the gateway's own file.", float64(len(r.Orders.Layers)))
	e.one("gridgate_config_trial", gauge, "1 while a configuration is on trial.", flag(r.Orders.Trial != ""))
	e.one("gridgate_trust_version", gauge, "Version of the trust document; 0 is none.", float64(r.Orders.Trust))
	e.family("gridgate_orders_refused_total", counter, "Signed documents that were not taken, by reason.")
	refused := a.orders.refusedBy()
	for i, reason := range refusalReasons() {
		e.sample(float64(refused[i]), "reason", reason)
	}
	head, _ := a.state.AuditHead()
	e.one("gridgate_audit_entries_total", counter, "Entries of the audit log.", float64(head.Number))
	e.one("gridgate_notes", gauge, "What an operator should look at, see gridgate status.", float64(len(r.Notes)))
}

// pageMetrics tells of the page itself.
func (a *Agent) pageMetrics(e *exposition) {
	a.mu.Lock()
	p := a.page
	a.mu.Unlock()
	if p == nil {
		return
	}
	var s web.Stats
	if server := p.server.Load(); server != nil {
		s = server.Stats()
	}
	e.family("gridgate_page_requests_total", counter, "Requests to the page and its API, by class of status.")
	for i := 2; i < len(s.Requests); i++ {
		e.sample(float64(s.Requests[i]), "code", strconv.Itoa(i)+"xx")
	}
	e.one("gridgate_page_unknown_tokens_total", counter, "Requests without a token that is known.", float64(s.Wrong))
	e.one("gridgate_page_streams", gauge, "Streams of events that are open.", float64(s.Streams))
}

// processMetrics tells what the process uses, by the names that all use.
func processMetrics(e *exposition) {
	use := sys.Usage()
	e.one("gridgate_memory_anonymous_bytes", gauge, "Memory of the agent that is not a file's.", float64(use.Anonymous))
	e.one("gridgate_memory_available_bytes", gauge, "Memory of the machine that could be had.", float64(use.Available))
	e.one("gridgate_storage_written_bytes_total", counter, "Octets that the agent had written to storage.", float64(use.Written))
	e.one("process_resident_memory_bytes", gauge, "Memory of the agent.", float64(use.Resident))
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		e.one("process_cpu_seconds_total", counter, "Time that the agent had a processor.", time.Duration(u.Utime.Nano()+u.Stime.Nano()).Seconds())
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	e.one("go_goroutines", gauge, "Goroutines.", float64(runtime.NumGoroutine()))
	e.one("go_memstats_heap_alloc_bytes", gauge, "Octets of the heap that are in use.", float64(m.HeapAlloc))
	e.one("go_gc_cycles_total", counter, "Collections of garbage.", float64(m.NumGC))
}
