package record

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Limits on what one node may say.
const (
	MaxNodeID  = 128
	MaxVMs     = 1000
	MaxLabels  = 64
	MaxTrouble = 8
	MaxVMBytes = 256 << 10 // all VMs of a node, encoded
	maxName    = 256
	// maxLabelName is how many bytes the name of a label has at most.
	maxLabelName = 128
	maxURL       = 1024
)

// Report is what an agent says of its node. In Go a Report is complete: an
// empty field says that the node has nothing there. In JSON a field that is
// left out keeps what the masters know (Omitted remembers which), and an
// explicit null erases it.
type Report struct {
	NodeID string `json:"node_id"`
	// Boot and Seq are the account's [Version]. Legacy senders leave out both,
	// and the master assigns them.
	Boot uint64 `json:"boot,omitempty"`
	Seq  uint64 `json:"seq,omitempty"`
	Profile
	VMs []VM `json:"vms"`
	// Usage and UptimeS (seconds) are carried by the pulse, not by the record.
	Usage   Usage  `json:"usage"`
	UptimeS uint64 `json:"uptime_s"`
	// PublicKey (ed25519, 32 bytes) and Signature (64 bytes, see [Sign]) are
	// base64 in JSON. Both are set or neither is.
	PublicKey []byte `json:"public_key,omitempty"`
	Signature []byte `json:"signature,omitempty"`

	// Omitted says which fields of Profile, and whether VMs, Usage and UptimeS,
	// were left out.
	Omitted Omission `json:"-"`
}

// AccountVersion is the version of the account.
func (r *Report) AccountVersion() Version { return Version{r.Boot, r.Seq} }

// Omission is a set of report fields that the sender left out.
type Omission uint32

// Marks of a report that says nothing about VMs, usage or uptime.
const (
	OmittedVMs Omission = 1 << (31 - iota)
	OmittedUsage
	OmittedUptime
)

// profileFields names the fields that a report may leave out and how to keep
// what was known of each. A field's place is its bit in an Omission.
var profileFields = []struct {
	name string
	keep func(dst, src *Profile)
}{
	{"hostname", func(d, s *Profile) { d.Hostname = s.Hostname }},
	{"socket_path", func(d, s *Profile) { d.SocketPath = s.SocketPath }},
	{"mycelium_ip", func(d, s *Profile) { d.MyceliumIP = s.MyceliumIP }},
	{"version", func(d, s *Profile) { d.Version = s.Version }},
	{"location.country", func(d, s *Profile) { d.Location.Country = s.Location.Country }},
	{"location.city", func(d, s *Profile) { d.Location.City = s.Location.City }},
	{"location.latitude", func(d, s *Profile) { d.Location.Latitude = s.Location.Latitude }},
	{"location.longitude", func(d, s *Profile) { d.Location.Longitude = s.Location.Longitude }},
	{"total.cru", func(d, s *Profile) { d.Total.CRU = s.Total.CRU }},
	{"total.mru", func(d, s *Profile) { d.Total.MRU = s.Total.MRU }},
	{"total.sru", func(d, s *Profile) { d.Total.SRU = s.Total.SRU }},
	{"total.hru", func(d, s *Profile) { d.Total.HRU = s.Total.HRU }},
	{"slices_total", func(d, s *Profile) { d.SlicesTotal = s.SlicesTotal }},
	{"labels", func(d, s *Profile) { d.Labels = s.Labels }},
	{"machine_id", func(d, s *Profile) { d.MachineID = s.MachineID }},
	{"agent_path", func(d, s *Profile) { d.AgentPath = s.AgentPath }},
	{"trouble", func(d, s *Profile) { d.Trouble = s.Trouble }},
}

// complete fills the fields that were left out from what was known.
func (o Omission) complete(p Profile, known Profile) Profile {
	for i, f := range profileFields {
		if o&(1<<i) != 0 {
			f.keep(&p, &known)
		}
	}
	return p
}

// UnmarshalJSON decodes a report and remembers what it leaves out. Fields it
// does not know are ignored, for agents may be newer than masters. A wrong type
// is a [FieldError].
func (r *Report) UnmarshalJSON(data []byte) error {
	type plain Report // without this method
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		return jsonFieldError(err, data)
	}
	given, err := membersOf(data)
	if err != nil {
		return jsonFieldError(err, data)
	}
	inner := map[string]map[string]json.RawMessage{}
	for _, name := range []string{"location", "total"} {
		inner[name], _ = membersOf(given[name]) // decoded above, or left out
	}
	present := func(name string) bool {
		name, field, nested := strings.Cut(name, ".")
		value, ok := given[name]
		if ok && nested && value[0] != 'n' { // null is said of all fields
			_, ok = inner[name][field]
		}
		return ok
	}
	for i, f := range profileFields {
		if !present(f.name) {
			p.Omitted |= 1 << i
		}
	}
	for name, mark := range map[string]Omission{"vms": OmittedVMs, "usage": OmittedUsage, "uptime_s": OmittedUptime} {
		if !present(name) {
			p.Omitted |= mark
		}
	}
	*r = Report(p)
	return nil
}

// membersOf returns the members of a JSON object with their names in lower case, for
// encoding/json matches them whatever their case.
func membersOf(data []byte) (map[string]json.RawMessage, error) {
	var object map[string]json.RawMessage
	err := json.Unmarshal(data, &object)
	for name, value := range object {
		if lower := strings.ToLower(name); lower != name {
			delete(object, name)
			object[lower] = value
		}
	}
	return object, err
}

func jsonFieldError(err error, data []byte) error {
	if t := (*json.UnmarshalTypeError)(nil); errors.As(err, &t) {
		if t.Field == "" {
			return fieldErrorf("report", "cannot be a JSON %s, give an object", t.Value)
		}
		return fieldErrorf(strings.TrimPrefix(t.Field, "Profile."), "cannot be a JSON %s, give %s", t.Value, jsonType(t.Type))
	}
	if errors.As(err, new(base64.CorruptInputError)) {
		var key struct {
			PublicKey []byte `json:"public_key"`
		}
		if json.Unmarshal(data, &key) != nil {
			return fieldErrorf("public_key", "is not base64")
		}
		return fieldErrorf("signature", "is not base64")
	}
	return err
}

// jsonType names what JSON holds a Go type.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Uint64:
		return "a whole number from 0 to 2^64-1"
	case reflect.Float64:
		return "a number"
	case reflect.Uint8:
		return "base64"
	case reflect.Slice:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "a " + t.String()
}

// ValidNodeID returns a [FieldError] unless id has 1 to 128 characters out of
// A-Z a-z 0-9 . _ : -
func ValidNodeID(id string) error {
	if id == "" {
		return fieldErrorf("node_id", "is missing; give 1 to %d characters of A-Z a-z 0-9 . _ : -", MaxNodeID)
	}
	if len(id) > MaxNodeID {
		return fieldErrorf("node_id", "has %d characters, at most %d are allowed", len(id), MaxNodeID)
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '.', c == '_', c == ':', c == '-':
		default:
			return fieldErrorf("node_id", "has the character %q at position %d; allowed are A-Z a-z 0-9 . _ : -", c, i)
		}
	}
	return nil
}

// Validate returns a [FieldError] for the first field that cannot be taken.
func (r *Report) Validate() error {
	if err := ValidNodeID(r.NodeID); err != nil {
		return err
	}
	if r.Boot > math.MaxInt64 {
		return fieldErrorf("boot", "must be below 2^63")
	}
	if r.Seq > math.MaxInt64 {
		return fieldErrorf("seq", "must be below 2^63")
	}
	for _, s := range []struct {
		field, value string
		most         int
	}{
		{"hostname", r.Hostname, maxName},
		{"socket_path", r.SocketPath, maxURL},
		{"mycelium_ip", r.MyceliumIP, maxName},
		{"version", r.Version, maxName},
		{"machine_id", r.MachineID, maxName},
		{"agent_path", r.AgentPath, maxURL},
		{"location.country", r.Location.Country, maxName},
		{"location.city", r.Location.City, maxName},
	} {
		if err := validText(s.field, s.value, s.most); err != nil {
			return err
		}
	}
	for _, n := range []struct {
		field     string
		value     float64
		low, high float64
	}{
		{"location.latitude", r.Location.Latitude, -90, 90},
		{"location.longitude", r.Location.Longitude, -180, 180},
		{"total.cru", r.Total.CRU, 0, 1e9},
		{"usage.cru", r.Usage.CRU, 0, 1e9},
	} {
		if !(n.value >= n.low && n.value <= n.high) { // also refuses NaN
			return fieldErrorf(n.field, "is %v, must lie between %v and %v", n.value, n.low, n.high)
		}
	}
	if err := ValidLabels(r.Labels); err != nil {
		return err
	}
	if err := validTrouble(r.Trouble); err != nil {
		return err
	}
	return validVMs(r.VMs)
}

func validTrouble(trouble []string) error {
	if len(trouble) > MaxTrouble {
		return fieldErrorf("trouble", "has %d entries, at most %d are allowed", len(trouble), MaxTrouble)
	}
	for i, text := range trouble {
		at := fmt.Sprintf("trouble[%d]", i)
		if text == "" {
			return fieldErrorf(at, "is empty")
		}
		if err := validText(at, text, maxName); err != nil {
			return err
		}
	}
	return nil
}

// ValidLabels returns a [FieldError] unless there are at most 64 labels, with
// names of 1 to 128 and values of at most 256 characters.
func ValidLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return fieldErrorf("labels", "has %d entries, at most %d are allowed", len(labels), MaxLabels)
	}
	for k, v := range labels {
		if k == "" {
			return fieldErrorf("labels", "has an entry without a name")
		}
		if err := validText("labels", k, maxLabelName); err != nil {
			return err
		}
		if err := validText("labels."+k, v, maxName); err != nil {
			return err
		}
	}
	return nil
}

// ValidVM returns a [FieldError] for a VM that no report could have.
func ValidVM(vm VM) error { return validVMs([]VM{vm}) }

func validVMs(vms []VM) error {
	if len(vms) > MaxVMs {
		return fieldErrorf("vms", "has %d entries, at most %d are allowed", len(vms), MaxVMs)
	}
	seen := make(map[string]int, len(vms))
	for i, v := range vms {
		at := fmt.Sprintf("vms[%d].", i)
		if v.SID == "" {
			return fieldErrorf(at+"sid", "is missing")
		}
		if j, twice := seen[v.SID]; twice {
			return fieldErrorf(at+"sid", "%q is already the sid of vms[%d]", v.SID, j)
		}
		seen[v.SID] = i
		for _, s := range []struct{ field, value string }{
			{"sid", v.SID}, {"name", v.Name}, {"state", v.State}, {"ip", v.IP},
		} {
			if err := validText(at+s.field, s.value, maxName); err != nil {
				return err
			}
		}
	}
	if n := len(encodeVMs(vms)); n > MaxVMBytes {
		return fieldErrorf("vms", "takes %d bytes, at most %d are allowed", n, MaxVMBytes)
	}
	return nil
}

func validText(field, s string, most int) error {
	if len(s) > most {
		return fieldErrorf(field, "has %d bytes, at most %d are allowed", len(s), most)
	}
	if !utf8.ValidString(s) {
		return fieldErrorf(field, "is not valid UTF-8")
	}
	return nil
}
