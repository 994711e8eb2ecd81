package compute

import (
	"maps"
	"slices"
)

// MethodNames returns the bare names of all methods that are served, sorted.
func MethodNames() []string {
	names := slices.AppendSeq([]string{"rpc.discover"}, maps.Keys(new(Service).methods()))
	slices.Sort(names)
	return names
}
