package dlms

import (
	"fmt"

	"gridgate/dlms/axdr"
)

// Notification is what a meter sends unasked (IEC 62056-5-3, 9.5): a
// data-notification, which push setups send, an event-notification of one
// attribute, or an information-report of short names.
type Notification struct {
	Kind NotificationKind
	// Invoke is the long-invoke-id-and-priority of a data-notification.
	Invoke uint32
	// Time is when the meter sent it, if HasTime. An information-report gives
	// it as text: see TimeText.
	Time    DateTime
	HasTime bool
	// TimeText is the GeneralizedTime of an information-report, "" for none.
	TimeText string
	// Attribute is what an event-notification is about.
	Attribute Attribute
	// Value is the data of a data-notification or event-notification.
	Value axdr.Value
	// Names and Values are those of an information-report.
	Names  []uint16
	Values []axdr.Value
}

// NotificationKind says which notification it is: its tag.
type NotificationKind uint8

// The kinds.
const (
	DataNotificationKind  NotificationKind = tagDataNotification
	EventNotificationKind NotificationKind = tagEventNotification
	InformationReportKind NotificationKind = tagInformationReport
)

func (k NotificationKind) String() string {
	switch k {
	case DataNotificationKind:
		return "data-notification"
	case EventNotificationKind:
		return "event-notification"
	case InformationReportKind:
		return "information-report"
	}
	return fmt.Sprintf("notification %02X", uint8(k))
}

// isNotification says whether an APDU is one that a meter sends unasked.
func isNotification(tag byte) bool {
	return tag == tagDataNotification || tag == tagEventNotification || tag == tagInformationReport
}

// ParseNotification decodes a notification, put together and deciphered. What
// follows it is not looked at.
//
//	0F long-invoke-id 4  length and date-time, 0 for none  data
//	C2 00, or 01 length date-time  class 2  OBIS code 6  attribute 1  data
//	18 00, or 01 length text       n  n × (02 short name 2)   n  n × data
//
// A date-time that is no date-time is passed over. Some meters give it the tag
// of an octet-string.
func ParseNotification(apdu []byte) (Notification, error) {
	r := reader{b: apdu}
	n := Notification{Kind: NotificationKind(r.u8())}
	var err error
	switch n.Kind {
	case DataNotificationKind:
		n.Invoke = r.u32()
		if len(r.b) > 14 && r.b[0] == byte(axdr.TagOctetString) && r.b[1] == DateTimeLen {
			r.u8()
		}
		n.takeTime(r.counted())
		n.Value, err = r.data()
	case EventNotificationKind:
		if r.u8() != 0 {
			n.takeTime(r.counted())
		}
		n.Attribute = r.attribute()
		n.Value, err = r.data()
	case InformationReportKind:
		err = n.parseReport(&r)
	default:
		return Notification{}, malformed("%.16x… is no notification", apdu)
	}
	switch {
	case r.short:
		return Notification{}, malformed("%v cut short", n.Kind)
	case err != nil:
		return Notification{}, fmt.Errorf("%v: %w", n.Kind, err)
	}
	return n, nil
}

func (n *Notification) takeTime(b []byte) {
	d, err := ParseDateTime(string(b))
	n.Time, n.HasTime = d, err == nil
}

func (n *Notification) parseReport(r *reader) error {
	if r.u8() != 0 {
		n.TimeText = string(r.counted())
	}
	count, _ := r.count()
	if count > len(r.b) {
		return malformed("%d names in %d octets", count, len(r.b))
	}
	for range count {
		if choice := r.u8(); choice != byte(specName) && !r.short {
			return malformed("name of choice %d", choice)
		}
		n.Names = append(n.Names, r.u16())
	}
	if again, _ := r.count(); again != count {
		return malformed("%d values of %d names", again, count)
	}
	for range count {
		v, err := r.data()
		if err != nil {
			return err
		}
		n.Values = append(n.Values, v)
	}
	return nil
}

// AppendBinary appends the notification.
func (n Notification) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, byte(n.Kind))
	var text string
	if n.HasTime {
		text = string(n.Time.append(nil))
	}
	switch n.Kind {
	case DataNotificationKind:
		b = append(b, byte(n.Invoke>>24), byte(n.Invoke>>16), byte(n.Invoke>>8), byte(n.Invoke))
		b = append(axdr.AppendLength(b, len(text)), text...)
		return n.Value.AppendBinary(b)
	case EventNotificationKind:
		b = appendOptional(b, text)
		return n.Value.AppendBinary(n.Attribute.append(b))
	case InformationReportKind:
		if len(n.Names) != len(n.Values) {
			return nil, fmt.Errorf("%d names of %d values", len(n.Names), len(n.Values))
		}
		b = axdr.AppendLength(appendOptional(b, n.TimeText), len(n.Names))
		for _, name := range n.Names {
			b = append(b, byte(specName), byte(name>>8), byte(name))
		}
		b = axdr.AppendLength(b, len(n.Values))
		for _, v := range n.Values {
			var err error
			if b, err = v.AppendBinary(b); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	return nil, fmt.Errorf("%v has no encoding", n.Kind)
}

func appendOptional(b []byte, s string) []byte {
	if s == "" {
		return append(b, 0)
	}
	return append(axdr.AppendLength(append(b, 1), len(s)), s...)
}
