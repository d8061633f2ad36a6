package state

import "encoding/binary"

// AuditSent gives the number through which entries of the audit log have reached
// the fog; 0: none has.
func (s *State) AuditSent() uint64 {
	n, size := binary.Uvarint(s.get(kindAudit, auditSent))
	if size <= 0 {
		return 0
	}
	return n
}

// SetAuditSent stores that number.
func (s *State) SetAuditSent(n uint64) error {
	return s.set(kindAudit, auditSent, binary.AppendUvarint(nil, n))
}

const auditSent = "sent"
