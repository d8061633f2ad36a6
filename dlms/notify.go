package dlms

// isNotification says whether an APDU is one that a meter sends unasked.
func isNotification(tag byte) bool {
	return tag == tagDataNotification || tag == tagEventNotification || tag == tagInformationReport
}
