package dlms

import (
	"context"
	"fmt"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// The interface classes that the package has names or helpers for
// (IEC 62056-6-2, 4.3 to 4.7).
const (
	ClassData              = 1
	ClassRegister          = 3
	ClassExtendedRegister  = 4
	ClassDemandRegister    = 5
	ClassProfileGeneric    = 7
	ClassClock             = 8
	ClassScriptTable       = 9
	ClassSpecialDays       = 11
	ClassAssociationSN     = 12
	ClassAssociationLN     = 15
	ClassSAPAssignment     = 17
	ClassImageTransfer     = 18
	ClassActivityCalendar  = 20
	ClassRegisterMonitor   = 21
	ClassSingleAction      = 22
	ClassHDLCSetup         = 23
	ClassPushSetup         = 40
	ClassTCPUDPSetup       = 41
	ClassGPRSSetup         = 45
	ClassGSMDiagnostic     = 47
	ClassCompactData       = 62
	ClassSecuritySetup     = 64
	ClassDisconnectControl = 70
	ClassLimiter           = 71
)

// class is what a class is called, and its attributes from 2 and methods from 1.
type class struct {
	id         uint16
	name       string
	attributes []string
	methods    []string
}

var classes = []class{ //nolint:gochecknoglobals // a constant table
	{ClassData, "data", []string{"value"}, nil},
	{ClassRegister, "register", []string{"value", "scaler_unit"}, []string{"reset"}},
	{ClassExtendedRegister, "extended register", []string{"value", "scaler_unit", "status", "capture_time"}, []string{"reset"}},
	{ClassDemandRegister, "demand register", []string{
		"current_average_value", "last_average_value", "scaler_unit", "status",
		"capture_time", "start_time_current", "period", "number_of_periods",
	}, []string{"reset", "next_period"}},
	{ClassProfileGeneric, "profile generic", []string{
		"buffer", "capture_objects", "capture_period", "sort_method", "sort_object",
		"entries_in_use", "profile_entries",
	}, []string{"reset", "capture"}},
	{
		ClassClock, "clock",
		[]string{
			"time", "time_zone", "status", "daylight_savings_begin", "daylight_savings_end",
			"daylight_savings_deviation", "daylight_savings_enabled", "clock_base",
		},
		[]string{"adjust_to_quarter", "adjust_to_measuring_period", "adjust_to_minute", "adjust_to_preset_time", "preset_adjusting_time", "shift_time"},
	},
	{ClassScriptTable, "script table", []string{"scripts"}, []string{"execute"}},
	{ClassSpecialDays, "special days table", []string{"entries"}, []string{"insert", "delete"}},
	{
		ClassAssociationSN, "association SN",
		[]string{"object_list", "access_rights_list", "security_setup_reference", "user_list", "current_user"},
		[]string{"", "", "read_by_logical_name", "", "change_secret", "", "", "reply_to_HLS_authentication"},
	},
	{
		ClassAssociationLN, "association LN",
		[]string{
			"object_list", "associated_partners_id", "application_context_name",
			"xDLMS_context_info", "authentication_mechanism_name", "secret", "association_status", "security_setup_reference",
			"user_list", "current_user",
		},
		[]string{"reply_to_HLS_authentication", "change_HLS_secret", "add_object", "remove_object", "add_user", "remove_user"},
	},
	{ClassSAPAssignment, "SAP assignment", []string{"SAP_assignment_list"}, []string{"connect_logical_device"}},
	{
		ClassImageTransfer, "image transfer",
		[]string{
			"image_block_size", "image_transferred_blocks_status",
			"image_first_not_transferred_block_number", "image_transfer_enabled", "image_transfer_status", "image_to_activate_info",
		},
		[]string{"image_transfer_initiate", "image_block_transfer", "image_verify", "image_activate"},
	},
	{ClassActivityCalendar, "activity calendar", []string{
		"calendar_name_active", "season_profile_active", "week_profile_table_active",
		"day_profile_table_active", "calendar_name_passive", "season_profile_passive", "week_profile_table_passive",
		"day_profile_table_passive", "activate_passive_calendar_time",
	}, []string{"activate_passive_calendar"}},
	{ClassRegisterMonitor, "register monitor", []string{"thresholds", "monitored_value", "actions"}, nil},
	{ClassSingleAction, "single action schedule", []string{"executed_script", "type", "execution_time"}, nil},
	{ClassHDLCSetup, "IEC HDLC setup", []string{
		"comm_speed", "window_size_transmit", "window_size_receive", "max_info_field_length_transmit",
		"max_info_field_length_receive", "inter_octet_time_out", "inactivity_time_out", "device_address",
	}, nil},
	{ClassPushSetup, "push setup", []string{
		"push_object_list", "send_destination_and_method", "communication_window",
		"randomisation_start_interval", "number_of_retries", "repetition_delay",
		"port_reference", "push_client_SAP", "push_protection_parameters", "push_operation_method",
		"confirmation_parameters", "last_confirmation_date_time",
	}, []string{"push", "reset"}},
	{ClassTCPUDPSetup, "TCP-UDP setup", []string{"TCP-UDP_port", "IP_reference", "MSS", "nb_of_sim_conn", "inactivity_time_out"}, nil},
	{ClassGPRSSetup, "GPRS modem setup", []string{"APN", "PIN_code", "quality_of_service"}, nil},
	{ClassGSMDiagnostic, "GSM diagnostic", []string{"operator", "status", "cs_attachment", "ps_status", "cell_info", "adjacent_cells", "capture_time"}, nil},
	{
		ClassCompactData, "compact data",
		[]string{"compact_buffer", "capture_objects", "template_id", "template_description", "capture_method"},
		[]string{"reset", "capture"},
	},
	{
		ClassSecuritySetup, "security setup",
		[]string{"security_policy", "security_suite", "client_system_title", "server_system_title", "certificates"},
		[]string{
			"security_activate", "key_transfer", "key_agreement", "generate_key_pair", "generate_certificate_request",
			"import_certificate", "export_certificate", "remove_certificate",
		},
	},
	{ClassDisconnectControl, "disconnect control", []string{"output_state", "control_state", "control_mode"}, []string{"remote_disconnect", "remote_reconnect"}},
	{ClassLimiter, "limiter", []string{
		"monitored_value", "threshold_active", "threshold_normal", "threshold_emergency",
		"min_over_threshold_duration", "min_under_threshold_duration", "emergency_profile", "emergency_profile_group_id_list",
		"emergency_profile_active", "actions",
	}, nil},
}

func classOf(id uint16) class {
	for _, c := range classes {
		if c.id == id {
			return c
		}
	}
	return class{}
}

// ClassName gives the standard's name of an interface class, or "class N".
func ClassName(id uint16) string {
	if c := classOf(id); c.name != "" {
		return c.name
	}
	return fmt.Sprintf("class %d", id)
}

// AttributeName gives the standard's name of an attribute, or "attribute N".
func AttributeName(a Attribute) string {
	if a.ID == 1 {
		return "logical_name"
	}
	return nameAt(classOf(a.Class).attributes, int(a.ID)-2, "attribute", a.ID)
}

// MethodName gives the standard's name of a method, or "method N".
func MethodName(method Attribute) string {
	return nameAt(classOf(method.Class).methods, int(method.ID)-1, "method", method.ID)
}

func nameAt(names []string, i int, what string, id int8) string {
	if i >= 0 && i < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("%s %d", what, id)
}

// readFields reads attributes 2 and following of an object, so many, into fields.
// What the meter refuses is null-data and leaves its field as it is; the
// refusal of all is an error.
func (c *Client) readFields(ctx context.Context, class uint16, code obis.Code, count int) (*fields, error) {
	list := make([]Attribute, count)
	for i := range list {
		list[i] = Attribute{Class: class, Code: code, ID: int8(i + 2)}
	}
	items, err := c.ReadList(ctx, list)
	if err != nil {
		return nil, err
	}
	f := &fields{what: ClassName(class)}
	refused := 0
	for _, item := range items {
		f.items = append(f.items, item.Value)
		if item.Err != nil {
			refused++
			err = item.Err
		}
	}
	if refused == count {
		return nil, fmt.Errorf("%s %v: %w", f.what, code, err)
	}
	return f, nil
}

// fields takes values one after the other; what is not of the type that is
// asked for is remembered, and from then on all is zero. Null-data is of any
// type, and zero.
type fields struct {
	what  string
	items []axdr.Value
	at    int
	bad   error
}

// fieldsOf gives the fields of a structure of so many.
func fieldsOf(what string, v axdr.Value, count int) *fields {
	f := &fields{what: what, items: v.Items}
	if v.Tag != axdr.TagStructure || len(v.Items) != count {
		f.items, f.bad = nil, malformed("%s is %v of %d, want a structure of %d", what, v.Tag, len(v.Items), count)
	}
	return f
}

func (f *fields) next() axdr.Value {
	if f.bad != nil || f.at >= len(f.items) {
		return axdr.Value{}
	}
	f.at++
	return f.items[f.at-1]
}

func (f *fields) fail(v axdr.Value, want string) {
	if f.bad == nil && v.Tag != axdr.TagNull {
		f.bad = malformed("%s: field %d is %v, want %s", f.what, f.at, v.Tag, want)
	}
}

func (f *fields) number() int64 {
	v := f.next()
	if n, ok := v.Int64(); ok {
		return n
	}
	n, ok := v.Uint64()
	if !ok || n > 1<<63-1 {
		f.fail(v, "a whole number")
		return 0
	}
	return int64(n)
}

func (f *fields) boolean() bool {
	v := f.next()
	if v.Tag != axdr.TagBoolean {
		f.fail(v, "a boolean")
		return false
	}
	return v.Num != 0
}

func (f *fields) octets() string {
	v := f.next()
	switch v.Tag { //nolint:exhaustive // the strings, and no others
	case axdr.TagOctetString, axdr.TagVisibleString, axdr.TagUTF8String, axdr.TagDateTime, axdr.TagDate, axdr.TagTime, axdr.TagBitString:
		return v.Str
	}
	f.fail(v, "a string")
	return ""
}

func (f *fields) code() (code obis.Code) {
	s := f.octets()
	if f.bad == nil && len(s) != len(code) && s != "" {
		f.bad = malformed("%s: field %d is no logical name: %x", f.what, f.at, s)
		return code
	}
	copy(code[:], s)
	return code
}

func (f *fields) dateTime() (d DateTime) {
	s := f.octets()
	if s == "" || f.bad != nil {
		return d
	}
	d, f.bad = ParseDateTime(s)
	return d
}

func (f *fields) scale() (s ScalerUnit) {
	v := f.next()
	if v.Tag == axdr.TagNull || f.bad != nil {
		return s
	}
	s, f.bad = ParseScalerUnit(v)
	return s
}

// each calls take with the fields of each element of an array of structures.
func (f *fields) each(count int, take func(*fields)) {
	v := f.next()
	items, ok := v.Elements()
	if !ok {
		f.fail(v, "an array")
		return
	}
	for i, item := range items {
		inner := fieldsOf(fmt.Sprintf("%s: field %d: element %d", f.what, f.at, i), item, count)
		take(inner)
		if f.bad == nil {
			f.bad = inner.bad
		}
	}
}

// within gives the fields of a structure in the field.
func (f *fields) within(count int, take func(*fields)) {
	v := f.next()
	if v.Tag == axdr.TagNull || f.bad != nil {
		return
	}
	inner := fieldsOf(fmt.Sprintf("%s: field %d", f.what, f.at), v, count)
	take(inner)
	f.bad = inner.bad
}
