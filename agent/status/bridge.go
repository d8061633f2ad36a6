package status

import "time"

// Bridge is the bridge of a power line, and the nodes that it has.
type Bridge struct {
	Line      string `json:"line"`
	Kind      string `json:"kind"` // prime, gateway or g3
	Connected bool   `json:"connected"`
	Error     string `json:"error,omitempty"`
	Strange   uint64 `json:"frames_for_nobody"`
	Nodes     []Node `json:"nodes"`
}

// Node is a meter of a power line.
type Node struct {
	Meter   string     `json:"meter,omitempty"` // the id; empty where the configuration does not have it
	Device  uint16     `json:"device,omitempty"`
	Serial  string     `json:"serial,omitempty"` // as the network knows it
	EUI48   string     `json:"eui48,omitempty"`
	State   string     `json:"state"`
	Since   *time.Time `json:"since,omitempty"`
	Heard   *time.Time `json:"last_heard,omitempty"`
	RTT     float64    `json:"rtt_seconds"`
	Wait    float64    `json:"wait_seconds"`
	Asked   uint64     `json:"requests"`
	Lost    uint64     `json:"requests_lost"`
	Late    uint64     `json:"frames_late"`
	Quality *Quality   `json:"quality,omitempty"`
}

// Quality is what a node's meter says of its place in the network.
type Quality struct {
	At       time.Time `json:"at"`
	Level    uint64    `json:"level"`
	Sent     uint64    `json:"packets_sent"`
	Received uint64    `json:"packets_received"`
	Failed   uint64    `json:"packets_failed"`
	Damaged  uint64    `json:"packets_damaged"`
}
