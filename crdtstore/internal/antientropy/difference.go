package antientropy

import (
	"reflect"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Difference is one node that two masters hold differently. A zero state: that
// side does not know the node.
type Difference struct {
	Node        string
	Self, Other record.State
}

// Fields names what differs: fields of [record.Node] as they are called in JSON, or
// "missing_here" or "missing_there", or "history" where all that is visible is alike.
func (d Difference) Fields() []string {
	switch {
	case d.Self.IsZero():
		return []string{"missing_here"}
	case d.Other.IsZero():
		return []string{"missing_there"}
	}
	fields := fieldsThatDiffer(reflect.ValueOf(record.View(d.Node, d.Self)), reflect.ValueOf(record.View(d.Node, d.Other)))
	if len(fields) == 0 {
		return []string{"history"}
	}
	return fields
}

// fieldsThatDiffer compares two structs of one type by the JSON names of their
// fields, those of embedded structs included.
func fieldsThatDiffer(a, b reflect.Value) []string {
	var out []string
	for i := range a.NumField() {
		f := a.Type().Field(i)
		switch name, _, _ := strings.Cut(f.Tag.Get("json"), ","); {
		case f.Anonymous:
			out = append(out, fieldsThatDiffer(a.Field(i), b.Field(i))...)
		case name != "" && name != "-" && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			out = append(out, name)
		}
	}
	return out
}
