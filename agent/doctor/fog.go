package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"time"

	"gridgate/internal/mqtt"
)

// reachTime bounds an attempt to reach a broker: a handshake over GPRS takes 10 s.
const reachTime = 25 * time.Second

// soon is how long before its end a certificate is worth a warning.
const soon = 30 * 24 * time.Hour

// fog looks at the way to each broker. Where no agent runs it logs in as the agent
// would; beside a running one it does not, which would throw that out.
func (x *exam) fog(ctx context.Context) {
	const check = "fog"
	if x.Config == nil {
		return
	}
	u := x.Config.Uplink
	r := x.Result.Report
	if r != nil {
		switch {
		case r.Uplink.Connected && r.Uplink.Error == "":
			x.add(OK, check, "", r.Uplink.Broker+" up")
		case r.Uplink.Connected:
			x.add(Warn, check, "", r.Uplink.Error)
		case r.Uplink.Error != "":
			x.add(Fail, check, "", r.Uplink.Error)
		}
		if r.Uplink.Withheld {
			x.add(Warn, check, "a larger uplink.budget, or fewer readings: interval and instant wait for the next day or month", "the uplink's budget is spent")
		}
	}
	reached := false
	for _, broker := range u.Brokers {
		address, secure, err := mqtt.ParseURL(broker)
		if err != nil {
			x.add(Fail, check, "uplink.broker", err.Error())
			continue
		}
		host, _, _ := net.SplitHostPort(address)
		if net.ParseIP(host) == nil && !x.resolves(ctx, host) {
			continue
		}
		o := mqtt.Options{Address: address, ClientID: u.ClientID, Username: u.Username, Persistent: true, ConnectTimeout: reachTime}
		if len(u.Interfaces) > 0 {
			o.Interface = u.Interfaces[0]
		}
		if secure {
			if o.TLS, err = (mqtt.TLS{CAFile: u.CA, CertFile: u.Certificate, KeyFile: u.Key}).Config(); err != nil {
				x.add(Fail, check, "the files that uplink.ca, uplink.certificate and uplink.key name", err.Error())
				return
			}
			o.TLS.VerifyConnection = func(s tls.ConnectionState) error {
				x.expiry("the broker's certificate", s.PeerCertificates[0])
				return nil
			}
		}
		if r == nil && !reached {
			err = x.logIn(ctx, o)
		} else {
			err = mqtt.Reach(ctx, o)
		}
		if err == nil {
			reached = true
			x.add(OK, check, "", broker+" answers")
		} else if r == nil || r.Uplink.Error != err.Error() {
			x.add(Fail, check, "", err.Error())
		}
	}
}

// logIn connects as the agent would, and leaves.
func (x *exam) logIn(ctx context.Context, o mqtt.Options) error {
	var err error
	if o.Password, err = x.Config.Uplink.Password.Resolve(x.sources()); err != nil {
		return mqtt.Reach(ctx, o) // that it is missing is said elsewhere
	}
	conn, err := mqtt.Dial(ctx, o)
	if err != nil {
		return err
	}
	conn.Close()
	return nil
}

func (x *exam) resolves(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		x.add(Fail, "dns", "", fmt.Sprintf("the name %s does not resolve: %v", host, err))
		return false
	}
	x.add(OK, "dns", "", fmt.Sprintf("%s is %s", host, addresses[0]))
	return true
}

// certificates looks at those of our own.
func (x *exam) certificates(context.Context) {
	if x.Config == nil || !x.Config.Uplink.TLS() {
		return
	}
	const check = "tls"
	u := x.Config.Uplink
	for _, f := range []struct{ key, path string }{{"uplink.ca", u.CA}, {"uplink.certificate", u.Certificate}} {
		if f.path == "" {
			continue
		}
		text, err := os.ReadFile(f.path)
		if err != nil {
			x.add(Fail, check, "make it, or correct "+f.key, err.Error())
			continue
		}
		found := false
		for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
			if c, err := x509.ParseCertificate(b.Bytes); err == nil {
				found = true
				x.expiry(f.key, c)
			}
		}
		if !found {
			x.add(Fail, check, "a PEM file, with -----BEGIN CERTIFICATE-----", f.path+": no certificate in it")
		}
	}
	if u.Certificate != "" {
		if _, err := tls.LoadX509KeyPair(u.Certificate, u.Key); err != nil {
			x.add(Fail, check, "uplink.key has to be the key that the certificate was made for", err.Error())
		}
	}
}

// expiry looks whether a certificate holds now.
func (x *exam) expiry(whose string, c *x509.Certificate) {
	const check = "tls"
	now, end := time.Now(), c.NotAfter.UTC().Format(time.DateOnly)
	switch {
	case now.Before(c.NotBefore):
		x.add(Fail, check, "", whose+" is not valid before "+c.NotBefore.UTC().Format(time.RFC3339)+": is the gateway's clock right?")
	case now.After(c.NotAfter):
		x.add(Fail, check, "", whose+": certificate expired on "+end)
	case c.NotAfter.Sub(now) < soon:
		x.add(Warn, check, "a new one before that day", fmt.Sprintf("%s expires in %d days, on %s", whose, int(c.NotAfter.Sub(now).Hours()/24), end))
	default:
		x.add(OK, check, "", whose+" holds until "+end)
	}
}
