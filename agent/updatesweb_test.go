package agent

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestFirmwareFromTheWeb: a document that names a URL is fetched there by ranges;
// octets that are not those that were signed are never installed.
func TestFirmwareFromTheWeb(t *testing.T) {
	t.Parallel()
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		s, u, c, objects, _ := updating(t)
		var ranges atomic.Int64
		files := http.FileServer(http.Dir(objects))
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.Header.Get("Range"), "bytes=") {
				ranges.Add(1)
			}
			files.ServeHTTP(w, r)
		}))
		defer web.Close()
		b := u.firmware(t, objects, "here/gw1", 5, "1.3.0\nurl: "+web.URL, "test-board", program("B"))
		s.toB(c, "", b)
		defer s.beginOn(c)()
		if got := s.updated(5, "kept"); got.Firmware != "1.3.0" || c.running != "b" {
			t.Errorf("%+v in slot %s", got, c.running)
		}
		if ranges.Load() == 0 {
			t.Error("nothing was asked for by ranges")
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		s, u, c, objects, _ := updating(t)
		files := http.FileServer(http.Dir(objects))
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			files.ServeHTTP(rec, r)
			for name, values := range rec.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(rec.Code)
			_, _ = w.Write(bytes.ReplaceAll(rec.Body.Bytes(), []byte("B "), []byte("X ")))
		}))
		defer web.Close()
		b := u.firmware(t, objects, "here/gw1", 5, "1.3.0\nurl: "+web.URL, "test-board", program("B"))
		end := s.beginOn(c)
		defer end()
		if err := s.apply(b, ""); err != nil {
			t.Fatal(err)
		}
		if got := s.updated(5, "refused"); !strings.Contains(got.Reason, "not what the document says") {
			t.Errorf("%+v", got)
		}
		if c.isRestarted() || c.trial != "" {
			t.Errorf("slots: %+v", c)
		}
	})
}
