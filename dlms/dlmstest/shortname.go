package dlmstest

import (
	"gridgate/dlms/obis"
)

type shortName struct {
	base uint16
	code obis.Code
}

func (m *Meter) shortNames() []shortName { return nil }

func (s *Session) serveShort(*reader, int) []byte {
	return exception(serviceUnknown, serviceNotSupported)
}

func isShortProof([]byte) bool { return false }
