package agent

import (
	"math"
	"runtime"
	"syscall"
	"time"

	"gridgate/agent/modem"
	"gridgate/agent/poll"
	"gridgate/agent/status"
	"gridgate/agent/timesync"
	"gridgate/agent/uplink"
	"gridgate/agent/web"
	"gridgate/buffer"
	"gridgate/configs"
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
	if f := r.Firmware; f != nil {
		e.family("gridgate_firmware_info", gauge, "The update that was kept last, and the slot that runs; always 1.").sample2(1, "version", f.Version, "slot", f.Slot)
		e.family("gridgate_firmware_on_trial", gauge, "Whether new firmware has not proven itself yet.").sample(flag(f.OnTrial != ""), "", "")
	}
	e.family("gridgate_config_info", gauge, "The configuration that runs; always 1.").sample(1, "sha256", cfg.Hash()[:min(len(cfg.Hash()), 16)])
	meterMetrics(e, &r, cfg)
	a.lineMetrics(e, &r, cfg)
	a.laneMetrics(e, &r)
	a.uplinkMetrics(e, &r)
	modemMetrics(e, r.Modem)
	a.stageMetrics(e)
	e.family("gridgate_clock_state", gauge, "The state of the gateway's clock: 1 for the one that it is in.")
	for _, s := range []timesync.State{timesync.Synchronised, timesync.Holdover, timesync.Unsynchronised} {
		e.sample(flag(r.Clock.State == s.String()), "state", s.String())
	}
	e.family("gridgate_orders_refused_total", counter, "Signed documents that were not taken, by reason.")
	refused := a.orders.refusedBy()
	for i, reason := range refusalReasons() {
		e.sample(float64(refused[i]), "reason", reason)
	}
	a.pageMetrics(e)
	a.otherMetrics(e, &r, cfg)
	return e.b
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return unknown()
	}
	return float64(t.UnixMilli()) / 1000
}

func unixOf(t *time.Time) float64 {
	if t == nil {
		return unknown()
	}
	return unix(*t)
}

// isWrong says whether a meter's clock is surely off by more than it may be.
func isWrong(k *status.Clock, cfg *configs.Config) bool {
	return k != nil && (!k.Valid || max(k.Offset, -k.Offset)-k.Uncertainty > cfg.MeterClocks.Threshold.Seconds())
}

// meterMetrics tells how many meters are how.
func meterMetrics(e *exposition, r *status.Report, cfg *configs.Config) {
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
		if isWrong(m.Clock, cfg) {
			bad++
		}
	}
	e.family("gridgate_meters", gauge, "Meters by how they do.")
	for _, s := range []poll.State{poll.Waiting, poll.OK, poll.Partial, poll.Failing, poll.Exchanged, poll.LockedOut} {
		e.sample(float64(states[string(s)]), "state", string(s))
	}
	e.all([]metric{
		{"gridgate_meter_clocks_wrong", gauge, "Meters whose clocks are surely off by more than meter_clocks.threshold, or invalid.", float64(bad)},
		{"gridgate_profile_gaps_seconds", gauge, "How much of the profiles of all meters is still to be filled in.", float64(gaps)},
		{"gridgate_last_answer_timestamp_seconds", gauge, "When a meter answered last, in seconds since 1970.", unix(last)},
	})
	if !cfg.Page.MeterMetrics {
		return
	}
	for _, f := range []struct {
		name, kind, help string
		of               func(m *status.Meter) float64
	}{
		{"gridgate_meter_visits_total", counter, "Visits to a meter.", func(m *status.Meter) float64 { return float64(m.Visits) }},
		{"gridgate_meter_answers_total", counter, "Visits to a meter that were answered.", func(m *status.Meter) float64 { return float64(m.Answered) }},
		{"gridgate_meter_up", gauge, "1 where the last visit to a meter was answered by the one that is configured.", func(m *status.Meter) float64 {
			return flag(m.State == string(poll.OK) || m.State == string(poll.Partial))
		}},
		{"gridgate_meter_last_answer_timestamp_seconds", gauge, "When a meter answered last, in seconds since 1970.", func(m *status.Meter) float64 { return unixOf(m.Good) }},
		{"gridgate_meter_clock_offset_seconds", gauge, "A meter's clock less the gateway's, as last compared.", func(m *status.Meter) float64 {
			if m.Clock == nil {
				return unknown()
			}
			return m.Clock.Offset
		}},
	} {
		e.family(f.name, f.kind, f.help)
		for i := range r.Meters {
			if v := f.of(&r.Meters[i]); !math.IsNaN(v) {
				e.sample(v, "meter", r.Meters[i].Meter)
			}
		}
	}
}

// lineCount is what came of the visits of a line.
type lineCount struct {
	label string
	n     poll.Counts
}

// counts gives that by line, at last of those that have no label.
func (a *Agent) counts(cfg *configs.Config) (all []lineCount) {
	a.mu.Lock()
	defer a.mu.Unlock()
	other := lineCount{label: "other"}
	for _, l := range cfg.Lines() {
		running := a.lines[l.Key]
		if running == nil {
			continue
		}
		n := running.poller.Counts()
		if len(all) < maxLineLabels && (l.Serial || len(l.Meters) > 1) {
			all = append(all, lineCount{l.Key, n})
			continue
		}
		for i := range n {
			other.n[i] += n[i]
		}
	}
	return append(all, other)
}

// lineMetrics tells what came of visits, by line.
func (a *Agent) lineMetrics(e *exposition, r *status.Report, cfg *configs.Config) {
	e.family("gridgate_polls_total", counter, "Visits to meters, by line and by what came of them.")
	for _, c := range a.counts(cfg) {
		for _, result := range poll.Results() {
			e.sample2(float64(c.n[result]), "line", c.label, "result", result.String())
		}
	}
	for _, f := range []struct {
		name, help string
		of         func(b *status.Bridge) float64
	}{
		{"gridgate_plc_connected", "1 where the bridge of a power line answers.", func(b *status.Bridge) float64 { return flag(b.Connected) }},
		{"gridgate_plc_nodes", "Nodes that the bridge of a power line has.", func(b *status.Bridge) float64 { return float64(len(b.Nodes)) }},
		{"gridgate_plc_requests", "Requests to the nodes that a power line has now, since each came.", func(b *status.Bridge) (n float64) {
			for i := range b.Nodes {
				n += float64(b.Nodes[i].Asked)
			}
			return n
		}},
		{"gridgate_plc_requests_lost", "Of gridgate_plc_requests, those not answered in time.", func(b *status.Bridge) (n float64) {
			for i := range b.Nodes {
				n += float64(b.Nodes[i].Lost)
			}
			return n
		}},
	} {
		if len(r.Bridges) > 0 {
			e.family(f.name, gauge, f.help)
		}
		for i := range r.Bridges[:min(len(r.Bridges), maxLineLabels)] {
			e.sample(f.of(&r.Bridges[i]), "line", r.Bridges[i].Line)
		}
	}
}

// oneLane is what is known of a lane.
type oneLane struct {
	status.Lane
	store buffer.LaneStat
	sent  uplink.LaneStats
}

// laneMetrics tells how rows come along, by lane.
func (a *Agent) laneMetrics(e *exposition, r *status.Report) {
	st, err := a.store.get().Stat()
	sent := a.uplinkStats().Lanes
	e.all([]metric{
		{"gridgate_buffer_open", gauge, "1 while the buffer can be used; without it rows wait in memory.", flag(err == nil)},
		{"gridgate_buffer_commits_total", counter, "Commits of the buffer's file, since its epoch began.", float64(st.Commits)},
		{"gridgate_buffer_file_bytes", gauge, "Size of the buffer's file.", float64(st.FileBytes)},
		{"gridgate_buffer_free_bytes", gauge, "Of the buffer's file, what new rows can take.", float64(st.FreeBytes)},
	})
	for _, f := range []struct {
		name, kind, help string
		of               func(l *oneLane) uint64
	}{
		{"gridgate_lane_rows_total", counter, "Rows of a lane that were given a number, since the epoch of the buffer began.", func(l *oneLane) uint64 { return l.Last }},
		{"gridgate_lane_rows_delivered_total", counter, "Rows of a lane that the fog has or that were declared lost, since the epoch began.", func(l *oneLane) uint64 { return l.Acked }},
		{"gridgate_lane_rows_lost_total", counter, "Rows of a lane given up before the fog had them, since the epoch began.", func(l *oneLane) uint64 { return l.Lost }},
		{"gridgate_backlog_rows", gauge, "Rows of a lane that wait to be delivered.", func(l *oneLane) uint64 { return l.Last - min(l.Acked, l.Last) }},
		{"gridgate_backlog_bytes", gauge, "Flash that the rows of a lane take that wait to be delivered.", func(l *oneLane) uint64 { return l.store.Bytes - min(l.store.HotBytes, l.store.Bytes) }},
		{"gridgate_buffer_lane_bytes", gauge, "Flash that the rows of a lane take, delivered or not.", func(l *oneLane) uint64 { return l.store.Bytes }},
		{"gridgate_buffer_lane_rows", gauge, "Rows of a lane that are kept, delivered or not.", func(l *oneLane) uint64 { return l.store.Rows }},
		{"gridgate_buffer_holes", gauge, "Stretches of numbers of a lane that are declared to have no rows.", func(l *oneLane) uint64 { return l.store.Holes }},
		{"gridgate_buffer_damaged_rows", gauge, "Numbers of a lane in damaged chunks that were met since the start.", func(l *oneLane) uint64 { return l.store.Damaged }},
		{"gridgate_uplink_lane_batches_total", counter, "Batches of a lane that were published, repetitions included.", func(l *oneLane) uint64 { return l.sent.Batches }},
		{"gridgate_uplink_lane_bytes_total", counter, "Octets of the batches of a lane that were published.", func(l *oneLane) uint64 { return l.sent.Bytes }},
	} {
		e.family(f.name, f.kind, f.help)
		for i := range r.Lanes {
			l := oneLane{Lane: r.Lanes[i], sent: sent[i]}
			if i < len(st.Lanes) {
				l.store = st.Lanes[i]
			}
			e.sample(float64(f.of(&l)), "lane", l.Lane.Lane)
		}
	}
}

// uplinkStats gives the counts of the uplink, zero while there is none.
func (a *Agent) uplinkStats() uplink.Stats {
	a.mu.Lock()
	u := a.uplink
	a.mu.Unlock()
	if u == nil || u.uplink == nil {
		return uplink.Stats{}
	}
	return u.uplink.Stats()
}

// uplinkMetrics tells of the way to the fog.
func (a *Agent) uplinkMetrics(e *exposition, r *status.Report) {
	s := a.uplinkStats()
	e.all([]metric{
		{"gridgate_uplink_connected", gauge, "1 while the broker takes what is sent.", flag(r.Uplink.Connected)},
		{"gridgate_uplink_away_seconds", gauge, "For how long the fog has not been reached, or since the start; to 15 s.", a.reached.away().Seconds()},
		{"gridgate_uplink_attempts_total", counter, "Attempts to connect.", float64(s.Attempts)},
		{"gridgate_uplink_reconnects_total", counter, "Connections after the first.", float64(s.Reconnects)},
		{"gridgate_uplink_rows_acked_total", counter, "Rows that the broker acknowledged.", float64(s.Rows)},
		{"gridgate_uplink_rows_resent_total", counter, "Rows sent again since the fog asked or did not confirm.", float64(s.Resent)},
		{"gridgate_uplink_messages_ignored_total", counter, "Messages of the fog that were foreign, impossible or unreadable.", float64(s.Ignored)},
		{"gridgate_uplink_bytes_total", counter, "Octets published, with topics and the headers of MQTT.", float64(s.Bytes)},
		{"gridgate_uplink_window_bytes", gauge, "Octets that may be under way.", float64(s.Window)},
		{"gridgate_uplink_rate_bytes_per_second", gauge, "The rate of the link as measured; 0 is not known.", s.Rate},
		{"gridgate_uplink_puback_seconds", gauge, "From publishing to its acknowledgement, smoothed.", s.Puback.Seconds()},
		{"gridgate_uplink_budget_day_spent_bytes", gauge, "Octets spent today; 0 where there is no budget.", float64(s.DayBytes)},
		{"gridgate_uplink_budget_month_spent_bytes", gauge, "Octets spent this month; 0 where there is no budget.", float64(s.MonthBytes)},
		{"gridgate_uplink_budget_spent", gauge, "1 while the budget is spent, so that interval and instant wait.", flag(s.Withheld)},
		{"gridgate_uplink_unconfirmed_lanes", gauge, "Lanes that the broker takes and the fog does not confirm.", float64(len(s.Unconfirmed))},
	})
}

// modemMetrics tells of the mobile modem, where there is one.
func modemMetrics(e *exposition, m *status.Modem) {
	if m == nil {
		return
	}
	e.family("gridgate_modem_state", gauge, "The state of the mobile modem: 1 for the one that it is in.")
	for _, s := range modem.States() {
		e.sample(flag(m.State == string(s)), "state", string(s))
	}
	signal := unknown()
	if m.Signal != nil {
		signal = float64(*m.Signal)
	}
	e.all([]metric{
		{"gridgate_modem_signal_dbm", gauge, "The signal that the modem has, in dBm; absent where nobody knows.", signal},
		{"gridgate_modem_resets_total", counter, "Times that the modem was reset.", float64(m.Resets)},
	})
}

// stageMetrics tells when each stage told last that it gets on; of the lines the one
// that is silent for longest.
func (a *Agent) stageMetrics(e *exposition) {
	e.family("gridgate_stage_silence_seconds", gauge, "For how long a stage has not told that it gets on; 300 s, and 600 s of the uplink, make the watchdog start the agent anew.")
	for _, s := range a.silences() {
		e.sample(s.silence.Seconds(), "stage", s.stage)
	}
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
	for i, class := range []string{"2xx", "3xx", "4xx", "5xx"} {
		e.sample(float64(s.Requests[i+2]), "code", class)
	}
	e.all([]metric{
		{"gridgate_page_unknown_tokens_total", counter, "Requests without a token that is known.", float64(s.Wrong)},
		{"gridgate_page_streams", gauge, "Streams of events that are open.", float64(s.Streams)},
	})
}

// otherMetrics tells of the rest.
func (a *Agent) otherMetrics(e *exposition, r *status.Report, cfg *configs.Config) {
	in, c := a.intake.Stats(), &r.Clock
	bound := unknown()
	if c.Bound != nil {
		bound = *c.Bound
	}
	head, _ := a.state.AuditHead()
	use := sys.Usage()
	total, free, _ := sys.Room(cfg.Buffer.Path)
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	e.family("gridgate_commits_total", counter, "Commits of rows to the buffer.")
	e.sample(float64(in.Commits), "result", "ok")
	e.sample(float64(in.Failed), "result", "failed")
	e.all([]metric{
		{"gridgate_start_time_seconds", gauge, "When the agent started, in seconds since 1970.", unix(r.Started)},
		{"gridgate_rows_read_total", counter, "Rows read from meters, or pushed by them.", float64(in.Read)},
		{"gridgate_rows_stored_total", counter, "Rows committed to the buffer.", float64(in.Stored)},
		{"gridgate_rows_dropped_total", counter, "Rows lost since the buffer could not be written and memory ran out.", float64(in.Dropped)},
		{"gridgate_rows_reread_total", counter, "Rows given up in memory that are read from their meters again.", float64(in.Reread)},
		{"gridgate_rows_waiting", gauge, "Rows in memory that wait for their commit.", float64(in.Waiting)},
		{"gridgate_last_commit_timestamp_seconds", gauge, "When rows were committed last, in seconds since 1970.", unix(in.Last)},
		{"gridgate_disk_size_bytes", gauge, "Size of the file system that the buffer is on; 0 where it cannot be told.", float64(total)},
		{"gridgate_disk_free_bytes", gauge, "Of that, what is free.", float64(free)},
		{"gridgate_clock_offset_seconds", gauge, "The true time less the clock's, as far as known.", c.Offset},
		{"gridgate_clock_bound_seconds", gauge, "The largest error of the clock; absent where nobody knows.", bound},
		{"gridgate_clock_last_sync_timestamp_seconds", gauge, "When the time was learnt last, in seconds since 1970.", unixOf(c.LastSync)},
		{"gridgate_clock_drift_ratio", gauge, "What the oscillator is slow by, as a share.", c.Drift / 1e6},
		{"gridgate_clock_steps_total", counter, "Times that the clock was set.", float64(c.Steps)},
		{"gridgate_config_layers", gauge, "Documents that lie on the gateway's own file.", float64(len(r.Orders.Layers))},
		{"gridgate_config_trial", gauge, "1 while a configuration is on trial.", flag(r.Orders.Trial != "")},
		{"gridgate_trust_version", gauge, "Version of the trust document; 0 is none.", float64(r.Orders.Trust)},
		{"gridgate_audit_entries_total", counter, "Entries of the audit log.", float64(head.Number)},
		{"gridgate_notes", gauge, "What an operator should look at, see gridgate status.", float64(len(r.Notes))},
		{"gridgate_memory_anonymous_bytes", gauge, "Memory of the agent that is not a file's.", float64(use.Anonymous)},
		{"gridgate_memory_available_bytes", gauge, "Memory of the machine that could be had.", float64(use.Available)},
		{"gridgate_storage_written_bytes_total", counter, "Octets that the agent had written to storage.", float64(use.Written)},
		{"process_resident_memory_bytes", gauge, "Memory of the agent.", float64(use.Resident)},
		{"process_cpu_seconds_total", counter, "Time that the agent had a processor.", time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()},
		{"go_goroutines", gauge, "Goroutines.", float64(runtime.NumGoroutine())},
	})
}
