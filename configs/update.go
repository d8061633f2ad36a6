package configs

import (
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v4"
)

// maxProve is the longest that firmware may take to prove itself: after 90 minutes
// an image's first process starts what was before.
const maxProve = time.Hour

// Update says when new firmware comes, and where to.
type Update struct {
	Path    string        // a directory; beside buffer.path unless told
	Rate    int64         // bits a second; 0: as the link allows
	Windows []Window      // when new firmware may be started; none is always
	Prove   time.Duration // how long it may take to prove itself; trust.prove unless told, but at most an hour
}

// May says whether new firmware may be started at a time.
func (u Update) May(now time.Time, zone *time.Location) bool {
	now = now.In(zone)
	at := time.Duration(now.Hour())*time.Hour + time.Duration(now.Minute())*time.Minute
	for _, w := range u.Windows {
		if w.From < w.To && at >= w.From && at < w.To || w.From > w.To && (at >= w.From || at < w.To) {
			return true
		}
	}
	return len(u.Windows) == 0
}

func updateFields() []field[*Update] {
	return []field[*Update]{
		{name: "path", read: func(r *reader, at string, n *yaml.Node, u *Update) {
			u.Path = r.path(at, n, 4096)
		}},
		{name: "rate", read: func(r *reader, at string, n *yaml.Node, u *Update) {
			if u.Rate = r.integer(at, n, 0, 1e9); u.Rate > 0 && u.Rate < 1000 {
				r.fail(at, n, n.Value, "want 1000 or more bits a second, or 0 for as many as the link allows")
			}
		}},
		{name: "window", read: func(r *reader, at string, n *yaml.Node, u *Update) {
			r.list(at, n, maxWindows, func(at string, n *yaml.Node) {
				r.checked(at, n, "times of day such as 01:00-05:00", func(text string) bool {
					w, ok := parseWindow(text)
					u.Windows = append(u.Windows, w)
					return ok
				})
			})
		}},
		{name: "prove", read: func(r *reader, at string, n *yaml.Node, u *Update) {
			u.Prove = r.duration(at, n, time.Second, maxProve)
		}},
	}
}

// setDefaults fills in what the document does not say.
func (u *Update) setDefaults(buffer string, prove time.Duration) {
	if u.Path == "" {
		u.Path = filepath.Join(filepath.Dir(buffer), "firmware")
	}
	if u.Prove == 0 {
		u.Prove = min(prove, maxProve)
	}
}
