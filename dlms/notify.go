package dlms

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

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
	// it as text: see TextTime.
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

const tagDataNotificationConfirm = 0x10

// confirmedBit of a long-invoke-id-and-priority: the sender waits for an answer.
const confirmedBit = 1 << 30

// longInvokeMask takes the number out of a long-invoke-id-and-priority.
const longInvokeMask = 1<<24 - 1

// Number is the invoke id alone. Senders that count give each notification
// another; 0 is that of senders that do not.
func (n Notification) Number() uint32 { return n.Invoke & longInvokeMask }

// Confirmed says whether the sender asks for a confirmation. Meters with a
// customer port that cannot hear set the bit too.
func (n Notification) Confirmed() bool {
	return n.Kind == DataNotificationKind && n.Invoke&confirmedBit != 0
}

// AppendConfirmation appends the data-notification-confirm that a sender waits
// for (IEC 62056-5-3, 9.5, Data-Notification-Confirm):
//
//	10  long-invoke-id 4  length and date-time, 0 for none
//
// with id and time of the notification.
func (n Notification) AppendConfirmation(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, tagDataNotificationConfirm), n.Invoke)
	if !n.HasTime {
		return append(b, 0)
	}
	return n.Time.append(append(b, DateTimeLen))
}

// ParseConfirmation decodes a data-notification-confirm and gives the
// long-invoke-id-and-priority of what it confirms.
func ParseConfirmation(apdu []byte) (invoke uint32, err error) {
	r := reader{b: apdu}
	if tag := r.u8(); tag != tagDataNotificationConfirm {
		return 0, malformed("%.16x… is no data-notification-confirm", apdu)
	}
	invoke = r.u32()
	r.counted()
	if r.short {
		return 0, malformed("data-notification-confirm cut short")
	}
	return invoke, nil
}

// TextTime gives the time of an information-report: a GeneralizedTime, with
// seconds, minutes and the fraction left out or not. zone is that of a time
// that does not tell its own. ok is false where there is none, or none that
// can be read.
func (n Notification) TextTime(zone *time.Location) (at time.Time, ok bool) {
	text := strings.Replace(n.TimeText, ",", ".", 1)
	for _, layout := range [...]string{"20060102150405", "200601021504", "2006010215"} {
		for _, offset := range [...]string{"", "Z0700", "-07"} {
			if at, err := time.ParseInLocation(layout+offset, text, zone); err == nil {
				return at, true
			}
		}
	}
	return time.Time{}, false
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
